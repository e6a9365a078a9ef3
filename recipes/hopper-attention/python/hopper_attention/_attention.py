"""The functions that users call: `attention`, `explain`, and what is on the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from . import _rules
from ._backends import run_backend
from ._machine import capability, default_device, find, find_all
from ._rules import BACKENDS, Call, Decision, decide, device_reason
from ._words import Window, Words, settle

ENVIRONMENT = "HOPPER_ATTENTION_BACKEND"
"""The variable that names the backends allowed, the most wanted first, parted by commas."""

_GENERATIONS = (("fa3_fwd", "flash_attn_3"), ("flash_attn",))
_Asked = tuple[str, "int | None", str, int, tuple[str, ...]]
"""All that a choice depends on, in plain values: device, its number, dtype, head dim, features."""
_decided: dict[tuple[_Asked, tuple[str, ...]], Decision] = {}


class NoBackendError(ValueError):
    """No backend that is allowed takes the call; the message has every verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """A backend as this machine has it: `reason` says why it is not usable, None if it is."""

    name: str
    title: str
    version: str | None
    reason: str | None

    @property
    def usable(self) -> bool:
        """Whether some call can be given to it on this machine."""
        return self.reason is None


def available() -> tuple[Available, ...]:
    """Every backend, with its version and why it is not usable on this machine's GPU, or its CPU if it has none."""
    device, of_gpu = default_device()
    rows = []
    for name, backend in BACKENDS.items():
        found = find(name)
        reason = found.problem or device_reason(backend, device, of_gpu)
        rows.append(Available(name=name, title=backend.title, version=found.version, reason=reason))
    return tuple(rows)


def get_flash_attention_version() -> str | None:
    """The version of the newest generation of FlashAttention that is usable here, such as "3.0.0"; None if none is."""
    usable = {row.name: row.version for row in available() if row.usable}
    return next((usable[name] for names in _GENERATIONS for name in names if name in usable), None)


def is_flash_attention_3_available() -> bool:
    """Whether FlashAttention-3, of either package, imports here and runs on the current GPU."""
    return any(row.usable for row in available() if row.name in _GENERATIONS[0])


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: Window | None = None,
    softcap: float = 0.0,
    scale: float | None = None,
    dropout: float = 0.0,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    return_lse: bool = False,
    backend: str | Sequence[str] | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Compute softmax(softcap(q k^T * scale) + bias) v by the fastest backend that is right for the call.

    q: (batch, seqlen_q, heads, head_dim); k: (batch, seqlen_k, heads_k, head_dim), where heads is a multiple of
    heads_k; v: as k, with any head_dim. One device, one floating point dtype; under torch.autocast they are cast to its
    dtype first.

    causal: a query sees no key behind it; the last query is aligned with the last key. window: (before, behind), how
    many keys beside its own a query sees, -1 for no bound. softcap: c tanh(score / c) of each score, 0 for none. scale:
    if not given, 1 / sqrt(head_dim). dropout: the probability with which a weight is dropped, whatever mode a module is
    in. mask (bool, True where a key counts), bias (added to scores): broadcast to (batch, heads, seqlen_q, seqlen_k). A
    query that sees no key gives zeros.

    Returns the output, of q's shape with v's head_dim, in q's dtype (of float8: bfloat16); with return_lse also the
    log-sum-exp of the scores, (batch, heads, seqlen_q), float32 or wider. Both can be differentiated.

    backend: the only ones allowed, by name, the most wanted first; if not given, HOPPER_ATTENTION_BACKEND names them,
    else all are. Raises NoBackendError where none of them takes the call, and ValueError and TypeError for tensors and
    words that do not go together.
    """
    q, k, v = autocast(q, k, v)
    words = settle(
        q,
        k,
        v,
        causal=causal,
        window=window,
        softcap=softcap,
        scale=scale,
        dropout=dropout,
        mask=mask,
        bias=bias,
        lse=return_lse,
    )
    out, lse = _attend(q, k, v, words, backend)
    return out if lse is None else (out, lse)


def attention_part(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool,
    scale: float | None,
    dropout: float,
    backend: str | Sequence[str] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attention` with its log-sum-exp, to be put together by `merge` or as the ring does, and by nothing else.

    More backends can be differentiated so: see `_parts`.
    """
    q, k, v = autocast(q, k, v)
    words = settle(
        q,
        k,
        v,
        causal=causal,
        window=None,
        softcap=0.0,
        scale=scale,
        dropout=dropout,
        mask=None,
        bias=None,
        lse=True,
        merging=True,
    )
    out, lse = _attend(q, k, v, words, backend)
    if lse is None:  # never with Words.lse; said for type checkers
        raise TypeError("attention returned no log-sum-exp")
    return out, lse


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words, backend: str | Sequence[str] | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return run_backend(_choose(_asked(q, k, v, words), _names(backend)), q, k, v, words)


def explain(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: Window | None = None,
    softcap: float = 0.0,
    scale: float | None = None,
    dropout: float = 0.0,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    return_lse: bool = False,
    backend: str | Sequence[str] | None = None,
) -> Decision:
    """Say what `attention` would choose for the same arguments, and why every other backend was not; nothing is run."""
    q, k, v = autocast(q, k, v)
    words = settle(
        q,
        k,
        v,
        causal=causal,
        window=window,
        softcap=softcap,
        scale=scale,
        dropout=dropout,
        mask=mask,
        bias=bias,
        lse=return_lse,
    )
    return _decision(_asked(q, k, v, words), _names(backend))


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast as torch's own attention does under torch.autocast: float8 and float64 stay as they are."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype, cast = torch.get_autocast_dtype(device), (torch.float32, torch.float16, torch.bfloat16)
    return tuple(tensor.to(dtype) if tensor.dtype in cast else tensor for tensor in tensors)


def _names(backend: str | Sequence[str] | None) -> tuple[str, ...]:
    if backend is None:
        return ()
    return (backend,) if isinstance(backend, str) else tuple(backend)


def _asked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> _Asked:
    index = q.device.index if q.device.type == "cuda" else None
    dtype = str(q.dtype).removeprefix("torch.")
    # Traced with dynamic shapes a size is a symbol; the length of a range of it is a number, which the graph guards.
    head_dim = len(range(max(q.shape[-1], v.shape[-1])))
    return q.device.type, index, dtype, head_dim, _needs(q, k, v, words)


def _needs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> tuple[str, ...]:
    gradients = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    bias_gradient = torch.is_grad_enabled() and words.bias is not None and words.bias.requires_grad
    needs = {
        _rules.CAUSAL: words.causal,
        _rules.UNALIGNED: words.causal and q.shape[1] != k.shape[1],
        _rules.WINDOW: words.window is not None,
        _rules.SOFTCAP: words.softcap > 0.0,
        _rules.DROPOUT: words.dropout > 0.0,
        _rules.DROPOUT_OF_ALL: words.dropout == 1.0,
        _rules.MASK: words.mask is not None,
        _rules.BIAS: words.bias is not None,
        _rules.WIDE_BIAS: words.bias is not None and torch.promote_types(words.bias.dtype, q.dtype) != q.dtype,
        _rules.BIAS_GRADIENT: bias_gradient,
        _rules.GRADIENTS: gradients or bias_gradient,
        _rules.LSE: words.lse,
        _rules.LSE_GRADIENT: words.lse and not words.merging and (gradients or bias_gradient),
        _rules.MERGE_GRADIENT: words.merging and gradients,
        _rules.DETERMINISTIC: words.deterministic and (gradients or bias_gradient),
        _rules.VALUE_HEAD_DIM: q.shape[-1] != v.shape[-1],
        _rules.ONE_POSITION: q.shape[1] == 1 or k.shape[1] == 1,
        _rules.EMPTY: 0 in q.shape or 0 in k.shape or 0 in v.shape,
    }
    return tuple(feature for feature, needed in needs.items() if needed)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _choose(asked: _Asked, wanted: tuple[str, ...]) -> str:
    """The name of the backend for a call; under torch.compile this runs while tracing, and the graph has its answer."""
    decision = _decision(asked, wanted)
    if decision.chosen is None:
        raise NoBackendError(f"no attention backend that is allowed takes this call:\n{decision}")
    return decision.chosen


def _decision(asked: _Asked, wanted: tuple[str, ...]) -> Decision:
    """Decide, once for each set of all that it depends on."""
    wanted = wanted or _from_environment()
    decision = _decided.get((asked, wanted))
    if decision is None:
        device, index, dtype, head_dim, needs = asked
        of_gpu = capability(torch.cuda.current_device() if index is None else index) if device == "cuda" else None
        call = Call(device=device, capability=of_gpu, dtype=dtype, head_dim=head_dim, needs=frozenset(needs))
        decision = _decided[asked, wanted] = decide(find_all(), call, wanted)
    return decision


def _from_environment() -> tuple[str, ...]:
    return tuple(name.strip() for name in os.environ.get(ENVIRONMENT, "").split(",") if name.strip())
