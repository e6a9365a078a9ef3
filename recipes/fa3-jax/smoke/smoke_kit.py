"""What the smoke tests share: the wheel under test, inputs, the float64 reference, and how errors are measured.

Needs JAX alone. The wheel is unpacked, never installed, so that the node stays as it was and nothing else of the same
name can be imported in its place.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import platform
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

HEAD_DIMS = (64, 96, 128, 192, 256)
FP8 = "float8_e4m3fn"
# Bounds on |out - reference| / |reference|, as in the torch front's kit, which says why.
TOLERANCE = {"bfloat16": 3e-3, "float16": 5e-4, FP8: 5e-2}
LSE_TOLERANCE = {"bfloat16": 1e-3, "float16": 1e-3, FP8: 2e-2}
# The same for gradients: P and dP are rounded to the inputs' type before they are multiplied.
GRADIENT_TOLERANCE = {"bfloat16": 1e-2, "float16": 2e-3}

Arrays = tuple[jax.Array, ...]


@dataclass(frozen=True)
class Subject:
    """The wheel under test: its file, its hash, and its modules."""

    wheel: Path
    sha256: str
    package: ModuleType
    build: ModuleType

    @property
    def switches(self) -> frozenset[str]:
        """What its profile trimmed."""
        return frozenset(self.build.SWITCHES)

    def has(self, feature: str) -> bool:
        """Whether a feature was compiled in."""
        return f"DISABLE_{feature}" not in self.switches

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Head dims with kernels of their own."""
        return tuple(dim for dim in HEAD_DIMS if self.has(f"HDIM{dim}"))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Dtypes of query, key and value."""
        optional = {"FP16": "float16", "FP8": FP8}
        return ("bfloat16", *(dtype for feature, dtype in optional.items() if self.has(feature)))

    @property
    def head_dim(self) -> int:
        """One head dim for the tests that need only one: 128 where it was compiled."""
        return 128 if 128 in self.head_dims else self.head_dims[0]

    def attend(self, inputs: Inputs, **named: Any) -> Arrays:
        """Output and LSE of the wheel's forward pass."""
        descales = dict(zip(("query_descale", "key_descale", "value_descale"), inputs.descales, strict=False))
        found: Arrays = self.package.flash_attention_hopper_fwd(
            inputs.q, inputs.k, inputs.v, **descales, **named, return_lse=True
        )
        return found


def load_subject(wheel: Path, folder: Path) -> Subject:
    """Unpack the wheel into a folder and import it from there."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    sys.path.insert(0, str(folder))
    package = importlib.import_module("fa3_jax")
    if not str(package.__file__).startswith(str(folder)):
        raise ImportError(f"fa3_jax comes from {package.__file__}, not from {wheel}: run the kit in a fresh Python")
    return Subject(
        wheel=wheel,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        package=package,
        build=importlib.import_module("fa3_jax._build"),
    )


def missing_gpu() -> str | None:
    """Why the kernels cannot run here; None where they can."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return f"JAX {jax.__version__} found no GPU, only {device.platform}"
    capability = str(getattr(device, "compute_capability", "unknown"))
    if capability != "9.0":
        return f"the kernels need a GPU of compute capability 9.0 (H100, H200), and this one has {capability}"
    return None


def driver_version() -> str:
    """The driver's own version, from its management library; its CUDA version where that library is missing."""
    text = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, 96) == 0:
            return text.value.decode()
    version = ctypes.c_int(0)
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def machine_facts() -> dict[str, str]:
    """The machine as gpu.json names it."""
    return {
        "gpu": jax.devices()[0].device_kind,
        "driver": driver_version(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Inputs:
    """Query, key and value of the functions under test; descales, (batch, heads_k) each, where they are float8."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    descales: Arrays = ()

    @property
    def arrays(self) -> Arrays:
        """Query, key and value."""
        return self.q, self.k, self.v

    @property
    def exact(self) -> Arrays:
        """Query, key and value in float64, descaled: the reference's input."""
        found = [array.astype(jnp.float64) for array in self.arrays]
        if self.descales:
            heads = [array.shape[2] for array in found]
            descales = [
                jnp.repeat(descale.astype(jnp.float64), count // descale.shape[1], axis=1)[:, None, :, None]
                for descale, count in zip(self.descales, heads, strict=True)
            ]
            found = [array * descale for array, descale in zip(found, descales, strict=True)]
        return tuple(found)


def make_inputs(
    *,
    batch: int = 2,
    seqlen_q: int = 200,
    seqlen_k: int = 200,
    heads: int = 4,
    heads_k: int = 4,
    head_dim: int,
    head_dim_v: int | None = None,
    dtype: str = "bfloat16",
    seed: int = 0,
) -> Inputs:
    """Normally distributed inputs, the same for the same arguments; float8 comes with a descale of its own per head."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, dtype=np.float32)).astype(dtype)

    q = normal(batch, seqlen_q, heads, head_dim)
    k = normal(batch, seqlen_k, heads_k, head_dim)
    v = normal(batch, seqlen_k, heads_k, head_dim_v or head_dim)
    count = 3 if dtype == FP8 else 0
    descales = (jnp.asarray(random.random((batch, heads_k), dtype=np.float32)) + np.float32(0.5) for _ in range(count))
    return Inputs(q, k, v, tuple(descales))


def allowed_keys(seqlen_q: int, seqlen_k: int, *, causal: bool, window: tuple[int, int]) -> jax.Array:
    """Which keys each query sees, (seqlen_q, seqlen_k); the last query is aligned with the last key."""
    place = jnp.arange(seqlen_q)[:, None] + seqlen_k - seqlen_q
    key = jnp.arange(seqlen_k)[None, :]
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    allowed = jnp.ones((seqlen_q, seqlen_k), dtype=bool)
    if left >= 0:
        allowed &= key >= place - left
    if right >= 0:
        allowed &= key <= place + right
    return allowed


def reference(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    scale: float | None = None,
) -> Arrays:
    """Attention of float64 arrays: out (batch, seqlen_q, heads, head_dim_v), LSE (batch, heads, seqlen_q).

    A query that sees no key gets zeros and -inf.
    """
    group = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision="highest") * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    if softcap > 0:
        scores = softcap * jnp.tanh(scores / softcap)
    allowed = allowed_keys(q.shape[1], k.shape[1], causal=causal, window=window)
    seen = allowed.any(axis=-1)[:, None]
    scores = jnp.where(allowed, scores, -jnp.inf)
    highest = jnp.where(seen, jnp.max(scores, axis=-1, keepdims=True), 0.0)
    weights = jnp.where(allowed, jnp.exp(jnp.where(allowed, scores - highest, 0.0)), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    probabilities = weights / jnp.where(seen, total, 1.0)
    lse = jnp.where(seen, highest + jnp.log(jnp.where(seen, total, 1.0)), -jnp.inf)[..., 0]
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, v, precision="highest"), lse


def relative_error(found: jax.Array, expected: jax.Array) -> float:
    """|found - expected| / |expected|, norms over all elements."""
    difference = np.asarray(found, dtype=np.float64) - np.asarray(expected, dtype=np.float64)
    norm = np.linalg.norm(np.asarray(expected, dtype=np.float64))
    return float(np.linalg.norm(difference) / norm) if norm > 0 else float(np.linalg.norm(difference))


def require_close(found: Sequence[jax.Array], expected: Sequence[jax.Array], dtype: str) -> None:
    """Output and LSE are within the bounds of the dtype."""
    error = relative_error(found[0], expected[0])
    assert error <= TOLERANCE[dtype], f"output is off by {error:.2e}"
    lse, exact = np.asarray(found[1], dtype=np.float64), np.asarray(expected[1])
    blind = ~np.isfinite(exact)
    assert not np.isfinite(lse[blind]).any(), "a query that sees no key has a finite LSE"
    largest = float(np.abs(lse[~blind] - exact[~blind]).max(initial=0.0))
    assert largest <= LSE_TOLERANCE[dtype], f"LSE is off by {largest:.2e}"


def require_close_gradients(found: Sequence[jax.Array], expected: Sequence[jax.Array], dtype: str) -> None:
    """The gradients of query, key and value are within the bound of the dtype."""
    for name, got, exact in zip(("query", "key", "value"), found, expected, strict=True):
        error = relative_error(got, exact)
        assert error <= GRADIENT_TOLERANCE[dtype], f"the gradient of {name} is off by {error:.2e}"


def require_equal_bits(found: jax.Array, expected: jax.Array) -> None:
    """Two arrays hold the same bits."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes(), "bits differ"
