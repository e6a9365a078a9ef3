"""The implementations of attention that this Python has, each as one function of q, k, v and causal.

All take and give (batch, seqlen, heads, head_dim). What cannot be had is given with the reason.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Callable

from hopperforge.node.gpu.words import CHOOSER

Call = Callable[[Any, Any, Any, bool], Any]
FOREIGN = (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError)
"""What a library that is none of ours raises where it cannot or will not."""
HALF = ("bf16", "fp16")
_SDPA = {
    "sdpa_cudnn": ("CUDNN_ATTENTION", HALF),
    "sdpa_flash": ("FLASH_ATTENTION", HALF),
    "sdpa_efficient": ("EFFICIENT_ATTENTION", (*HALF, "fp32")),
    "sdpa_math": ("MATH", (*HALF, "fp32")),
}


class NothingMeasuredError(Exception):
    """Nothing can be measured here; the text says why, `hint` is what to do."""

    def __init__(self, why: str, hint: str) -> None:
        self.hint = hint
        super().__init__(why)


@dataclass(frozen=True)
class Backend:
    """An implementation; `backward` says whether it gives gradients."""

    name: str
    version: str
    dtypes: tuple[str, ...]
    backward: bool
    call: Call

    def lack(self, dtype: str, direction: str) -> str | None:
        """Say what it has not, before anything is tried."""
        if dtype not in self.dtypes:
            return f"has no {dtype}"
        if direction == "backward" and (not self.backward or dtype == "fp8"):
            return "has no backward pass"
        return None


@dataclass(frozen=True)
class Absent:
    """What is not here, and why."""

    name: str
    reason: str


def find_backends(torch: Any, names: Iterable[str]) -> tuple[tuple[Backend, ...], tuple[Absent, ...]]:
    """Import the implementations of these names; those that cannot be are given with the reason."""
    tried = [_tried(torch, name) for name in names]
    found = tuple(one for one in tried if isinstance(one, Backend))
    return found, tuple(one for one in tried if isinstance(one, Absent))


def need_backends(torch: Any, names: Iterable[str]) -> tuple[tuple[Backend, ...], tuple[Absent, ...]]:
    """Do as `find_backends`; NothingMeasuredError where none of them can be imported."""
    found, absent = find_backends(torch, names)
    if not found:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in absent)
        raise NothingMeasuredError(f"no implementation that was asked for is here: {reasons}", "leave backends= out")
    return found, absent


def _tried(torch: Any, name: str) -> Backend | Absent:
    try:
        return _MAKERS[name](torch, name)
    except FOREIGN as error:
        return Absent(name, _why(error))


def _why(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: there is no module {error.name}"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Put an error into one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def version_of(project: str) -> str:
    """Give the version of an installed project, "unknown" where no metadata is."""
    try:
        return metadata.version(project)
    except metadata.PackageNotFoundError:
        return "unknown"


def _plain(out: Any) -> Any:
    """Give the output alone: some versions of some libraries hand over the log-sum-exp as well."""
    return out[0] if isinstance(out, tuple) else out


def _fa3_fwd(_: Any, name: str) -> Backend:
    interface = importlib.import_module("fa3_fwd_interface")
    build = getattr(importlib.import_module("fa3_fwd"), "build_info", None)
    switches: Sequence[str] = ["DISABLE_BACKWARD"] if build is None else build()["switches"]
    return Backend(
        name=name,
        version=version_of("fa3-fwd"),
        dtypes=tuple(
            dtype
            for dtype, feature in (("bf16", "BF16"), ("fp16", "FP16"), ("fp8", "FP8"))
            if f"DISABLE_{feature}" not in switches
        ),
        backward="DISABLE_BACKWARD" not in switches,
        call=lambda q, k, v, causal: _plain(interface.flash_attn_func(q, k, v, causal=causal)),
    )


def _flash_attn_3(_: Any, name: str) -> Backend:
    interface = importlib.import_module("flash_attn_interface")
    return Backend(
        name=name,
        version=version_of("flash-attn-3"),
        dtypes=(*HALF, "fp8"),
        backward=True,
        call=lambda q, k, v, causal: _plain(interface.flash_attn_func(q, k, v, causal=causal)),
    )


def _flash_attn_2(_: Any, name: str) -> Backend:
    interface = importlib.import_module("flash_attn")
    return Backend(
        name=name,
        version=version_of("flash-attn"),
        dtypes=HALF,
        backward=True,
        call=lambda q, k, v, causal: _plain(interface.flash_attn_func(q, k, v, causal=causal)),
    )


def _fp32(_: Any, name: str) -> Backend:
    package = importlib.import_module("flash_attention")
    return Backend(
        name=name,
        version=version_of("flash-attn-fp32"),
        dtypes=("fp32",),
        backward=True,
        call=lambda q, k, v, causal: package.flash_attention(q, k, v, causal=causal),
    )


def _chooser(_: Any, name: str) -> Backend:
    package = importlib.import_module("hopper_attention")
    return Backend(
        name=name,
        version=version_of("hopper-attention"),
        dtypes=(*HALF, "fp32"),
        backward=True,
        call=lambda q, k, v, causal: package.attention(q, k, v, causal=causal),
    )


def _sdpa(torch: Any, name: str) -> Backend:
    choice = importlib.import_module("torch.nn.attention")
    member, dtypes = _SDPA[name]
    kernel = getattr(choice.SDPBackend, member)

    def call(q: Any, k: Any, v: Any, causal: bool) -> Any:
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        with choice.sdpa_kernel(kernel), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of each reason, and then raises with none of them
            out = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=causal)
        return out.transpose(1, 2)

    return Backend(name=name, version=torch.__version__, dtypes=dtypes, backward=True, call=call)


def _eager(torch: Any, name: str) -> Backend:
    def call(q: Any, k: Any, v: Any, causal: bool) -> Any:
        scores = torch.matmul(q.transpose(1, 2), k.permute(0, 2, 3, 1)) * q.shape[-1] ** -0.5
        if causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return torch.matmul(weights, v.transpose(1, 2)).transpose(1, 2)

    return Backend(name=name, version=torch.__version__, dtypes=(*HALF, "fp32"), backward=True, call=call)


_MAKERS: dict[str, Callable[[Any, str], Backend]] = {
    CHOOSER: _chooser,
    "fa3_fwd": _fa3_fwd,
    "flash_attn_3": _flash_attn_3,
    "flash_attn_2": _flash_attn_2,
    "fp32": _fp32,
    **dict.fromkeys(_SDPA, _sdpa),
    "eager": _eager,
}
