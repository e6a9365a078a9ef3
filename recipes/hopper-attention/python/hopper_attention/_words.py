"""What a call says beside its tensors, what is refused in words, and the masks that the words mean.

Everything is asked of shapes and dtypes, never of values, so that torch.compile can trace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Window = tuple[int, int]
UNLIMITED: Window = (-1, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of one call, settled.

    `window` is (keys before, keys behind) that a query sees beside its own, -1 for no bound; None where it bounds
    nothing. `bias` holds -inf where a mask was given as well. `merging` says that the log-sum-exp has the gradient of a
    part that is merged with others, and no other. `deterministic` is torch's own setting.
    """

    causal: bool
    window: Window | None
    softcap: float
    scale: float
    dropout: float
    mask: torch.Tensor | None
    bias: torch.Tensor | None
    lse: bool
    merging: bool = False
    deterministic: bool = False


def answer_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of an output for inputs of a dtype: its own, of float8 bfloat16."""
    return torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype


def settle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool,
    window: Sequence[int] | None,
    softcap: float,
    scale: float | None,
    dropout: float,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    lse: bool,
    merging: bool = False,
) -> Words:
    """Check tensors and words; ValueError and TypeError say what was found and what should be."""
    check_tensors(q, k, v)
    check_added("mask", mask, q, k)
    check_added("bias", bias, q, k)
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout is {dropout} and should be from 0 to 1")
    if not 0.0 <= softcap < float("inf"):
        raise ValueError(f"softcap is {softcap} and should be finite and not negative")
    if window is not None and (len(window) != 2 or min(window) < -1):
        raise ValueError(f"window is {window} and should be (keys before, keys behind), -1 for no bound")
    causal, settled = _settled(q.shape[1], causal, None if window is None else (window[0], window[1]))
    mask, bias = _four_dimensions(mask), _four_dimensions(bias)
    if mask is not None and bias is not None:
        bias = torch.where(mask, bias, float("-inf"))
        mask = None
    return Words(
        causal=causal,
        window=settled,
        softcap=float(softcap),
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        dropout=float(dropout),
        mask=mask,
        bias=bias,
        lse=lse,
        merging=merging,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def _settled(seqlen_q: int, causal: bool, window: Window | None) -> tuple[bool, Window | None]:
    """Leave out what bounds nothing: kernels without it may then take the call.

    seqlen_q  causal  window           becomes
    1         yes     none, (-1, any)  neither: the last query has every key before it
    any       any     (-1, -1)         no window
    any       yes     (-1, any)        no window
    any       yes     (before, any)    causal, (before, 0)
    """
    before, behind = window or UNLIMITED
    behind = 0 if causal else behind
    bounded = before >= 0 or (behind >= 0 and not causal)
    return causal and (seqlen_q > 1 or bounded), (before, behind) if bounded else None


def check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Refuse q, k and v that do not go together."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} has {tensor.dim()} dimensions, and should be (batch, seqlen, heads, head_dim)")
    _check_alike(q, k, v)
    _check_shapes(q, k, v)


def _check_alike(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    if not q.dtype.is_floating_point:
        raise TypeError(f"q, k and v are {q.dtype}, and should be of a floating point dtype")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} is {tensor.layout} and should be torch.strided: neither sparse nor nested")
        if tensor.device != q.device:
            raise ValueError(f"q is on {q.device} and {name} on {tensor.device}: they should be on one device")
        if tensor.dtype != q.dtype:
            raise TypeError(f"q is {q.dtype} and {name} {tensor.dtype}: they should be of one dtype")
        if tensor.shape[0] != q.shape[0]:
            raise ValueError(f"q has batch size {q.shape[0]} and {name} {tensor.shape[0]}: they should be equal")


def _check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"k is {tuple(k.shape)} and v {tuple(v.shape)}: they may differ in their last dimension alone")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q has head_dim {q.shape[-1]} and k {k.shape[-1]}: they should be equal")
    if q.shape[-1] == 0:
        raise ValueError("q and k have head_dim 0, over which there is nothing to compare")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2] != 0:
        raise ValueError(f"q has {q.shape[2]} heads, which is no multiple of the {k.shape[2]} of k and v")


def check_added(name: str, added: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> None:
    """Refuse a mask or a bias of a wrong kind; each is broadcast to (batch, heads, seqlen_q, seqlen_k)."""
    if added is None:
        return
    if name == "mask" and added.dtype != torch.bool:
        raise TypeError(f"mask is {added.dtype} and should be torch.bool, True where a key counts; did you mean bias?")
    if name == "bias" and not added.dtype.is_floating_point:
        raise TypeError(f"bias is {added.dtype} and should be of a floating point dtype; did you mean mask?")
    if added.device != q.device:
        raise ValueError(f"q is on {q.device} and {name} on {added.device}: they should be on one device")
    whole = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    sizes = zip(reversed(added.shape), reversed(whole), strict=False)
    if added.dim() > 4 or any(size not in {1, full} for size, full in sizes):
        raise ValueError(
            f"{name} is {tuple(added.shape)}, which does not broadcast to (batch, heads, seqlen_q, seqlen_k) = {whole}"
        )


def _four_dimensions(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor[(None,) * (4 - tensor.dim())]


def visible(words: Words, seqlen_q: int, seqlen_k: int, device: torch.device) -> torch.Tensor | None:
    """Which keys a query sees by the words `causal` and `window`: bool, (seqlen_q, seqlen_k); None where it sees all.

    The last query is aligned with the last key.
    """
    if not words.causal and words.window is None:
        return None
    before, behind = words.window or UNLIMITED
    query = torch.arange(seqlen_q, device=device)[:, None] + (seqlen_k - seqlen_q)
    distance = torch.arange(seqlen_k, device=device)[None, :] - query
    seen = distance <= 0 if words.causal else torch.ones_like(distance, dtype=torch.bool)
    if before >= 0:
        seen = seen & (distance >= -before)
    if behind >= 0:
        seen = seen & (distance <= behind)
    return seen
