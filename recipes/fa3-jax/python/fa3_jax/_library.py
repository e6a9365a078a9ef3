"""The compiled library: finds it, gives its handlers to JAX, and asks it what a call needs.

The library is plain C: no Python ABI, no torch, and the CUDA runtime inside. It needs no GPU to load, to be asked, or
to have its handlers registered.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    from ._options import Options

FORWARD = "hopperforge_fa3_forward"
BACKWARD = "hopperforge_fa3_backward"
HANDLERS = {FORWARD: "fa3_jax_forward", BACKWARD: "fa3_jax_backward"}
OLDEST_JAX = (0, 5)

DTYPES = {"float16": 0, "bfloat16": 1, "float8_e4m3fn": 2}
INVALID = (1, 2)  # an argument that makes no sense, or one that is misaligned
FILE = "libfa3_jax.so"


class UnsupportedFeatureError(RuntimeError):
    """The call needs kernels that this profile does not hold, or that no profile holds."""


class Request(ctypes.Structure):
    """What a call is about, without its arrays; src/request.h has the same."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("dtype", "batch", "seqlen_q", "seqlen_k", "total_q", "total_k")),
        *((name, ctypes.c_int64) for name in ("heads", "heads_k", "head_dim", "head_dim_v")),
        *((name, ctypes.c_int64) for name in ("causal", "window_left", "window_right", "num_splits", "deterministic")),
        *((name, ctypes.c_int64) for name in ("packed", "descaled")),
        *((name, ctypes.c_double) for name in ("softmax_scale", "softcap")),
    )


@dataclass(frozen=True)
class Shapes:
    """The arrays of a call: dtype, shapes of query and key, the head dim of values, the number of sequences."""

    dtype: str
    query: tuple[int, ...]
    key: tuple[int, ...]
    head_dim_v: int
    batch: int


def make_request(options: Options, shapes: Shapes) -> Request:
    """The request of a call on arrays of these shapes."""
    query, key, batch = shapes.query, shapes.key, shapes.batch
    seqlen_q, seqlen_k = (query[1], key[1]) if options.lengths is None else options.lengths
    total_q, total_k = (batch * seqlen_q, batch * seqlen_k) if options.lengths is None else (query[0], key[0])
    return Request(
        dtype=DTYPES[shapes.dtype],
        batch=batch,
        seqlen_q=seqlen_q,
        seqlen_k=seqlen_k,
        total_q=total_q,
        total_k=total_k,
        heads=query[-2],
        heads_k=key[-2],
        head_dim=query[-1],
        head_dim_v=shapes.head_dim_v,
        causal=options.causal,
        window_left=options.window[0],
        window_right=options.window[1],
        num_splits=options.num_splits,
        deterministic=options.deterministic,
        packed=options.lengths is not None,
        descaled=options.descaled,
        softmax_scale=options.softmax_scale,
        softcap=options.softcap,
    )


@lru_cache(maxsize=4096)
def workspace_bytes(options: Options, shapes: Shapes, *, backward: bool) -> int:
    """The bytes of workspace a call needs on any GPU of compute capability 9.0; asks no GPU.

    Raises UnsupportedFeatureError or ValueError, in the library's words, for a call that it would refuse.
    """
    library = load()
    needed = ctypes.c_int64(0)
    request = make_request(options, shapes)
    status = library.fa3_jax_plan(ctypes.byref(request), int(backward), ctypes.byref(needed))
    if status == 0:
        return needed.value
    message = library.fa3_jax_message().decode()
    raise ValueError(message) if status in INVALID else UnsupportedFeatureError(message)


@cache
def load() -> ctypes.CDLL:
    """Load the library and register its handlers with JAX, once; ImportError says what does not fit."""
    found = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if found < OLDEST_JAX:
        raise ImportError(
            f"fa3_jax needs jax {OLDEST_JAX[0]}.{OLDEST_JAX[1]} or newer, whose jax.ffi it uses, and found jax "
            f"{jax.__version__}: install a newer jax"
        )
    path = Path(__file__).parent / FILE
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"fa3_jax's library does not load ({error}): reinstall fa3_jax on Linux x86-64") from error
    library.fa3_jax_plan.argtypes = (ctypes.POINTER(Request), ctypes.c_int, ctypes.POINTER(ctypes.c_int64))
    library.fa3_jax_message.restype = ctypes.c_char_p
    _register(library)
    return library


def _register(library: ctypes.CDLL) -> None:
    """Give the handlers to JAX: those that compute for CUDA, and one that says what is missing for CPU.

    JAX takes them in when it starts a backend. Every XLA of FFI 0.1 or newer takes them so far; one that no longer
    does says so there, naming both versions.
    """
    refusing = jax.ffi.pycapsule(library.fa3_jax_refuse)
    for target, symbol in HANDLERS.items():
        jax.ffi.register_ffi_target(target, refusing, platform="cpu")
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, symbol)), platform="CUDA")
