"""What a call is refused for, in words: shapes, dtypes and words that do not go together. Needs torch alone, no GPU.

Everything here is asked of shapes and dtypes, never of values on the GPU, so that torch.compile can trace it.
"""

from __future__ import annotations

import torch

HEAD_DIMS = (32, 64, 96, 128)


def check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, packed: bool) -> None:
    """Refuse q, k and v that the kernels cannot take; head dims between those with kernels are padded by the caller.

    Raises TypeError for dtypes, ValueError for shapes, RuntimeError for tensors that are not on a GPU.
    """
    layout = "(rows of all sequences, heads, head_dim)" if packed else "(batch, seqlen, heads, head_dim)"
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != (3 if packed else 4):
            raise ValueError(f"{name} has {tensor.dim()} dimensions, and should be {layout}")
    _check_devices(q, k, v)
    _check_dtypes(q, k, v)
    if not packed and not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(
            f"q, k and v have batch sizes {q.shape[0]}, {k.shape[0]} and {v.shape[0]}: they should be equal"
        )
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"k is {tuple(k.shape)} and v {tuple(v.shape)}: they may differ in their last dimension alone")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q has head_dim {q.shape[-1]} and k {k.shape[-1]}: they should be equal")
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2] != 0:
        raise ValueError(f"q has {q.shape[-2]} heads, which is no multiple of the {k.shape[-2]} of k and v")
    for name, tensor in (("q and k", q), ("v", v)):
        if not 0 < tensor.shape[-1] <= HEAD_DIMS[-1]:
            raise ValueError(f"{name} have head_dim {tensor.shape[-1]}: there are kernels from 1 to {HEAD_DIMS[-1]}")


def _check_dtypes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        # Under autocast the operator casts whatever floating point comes.
        allowed = tensor.dtype.is_floating_point if torch.is_autocast_enabled(q.device.type) else False
        if tensor.dtype != torch.float32 and not allowed:
            raise TypeError(
                f"{name} is {tensor.dtype}: flash_attention computes in torch.float32; call {name}.float(), or run it "
                'under torch.autocast("cuda"), which casts for it'
            )


def _check_devices(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.device.type != "cuda":
            where = "this machine has no GPU that torch can use" if not torch.cuda.is_available() else 'use .to("cuda")'
            raise RuntimeError(f"flash_attention runs on NVIDIA GPUs, and {name} is on {tensor.device}: {where}")
        if tensor.device != q.device:
            raise RuntimeError(f"q is on {q.device} and {name} on {tensor.device}: they should be on one GPU")


def check_added(
    q: torch.Tensor, k: torch.Tensor, *, bias: torch.Tensor | None, mask: torch.Tensor | None, packed: bool
) -> None:
    """Refuse a bias or a mask of a wrong kind; each is broadcast to (batch, heads, seqlen_q, seqlen_k)."""
    if bias is not None and mask is not None:
        raise ValueError("bias and mask are both given: add float('-inf') to the bias where the mask is False")
    if bias is None and mask is None:
        return
    name, added = ("bias", bias) if bias is not None else ("mask", mask)
    if added is None:  # one of the two is not None; said for type checkers
        return
    if packed:
        raise ValueError(f"{name} goes with a batch of equal lengths, not with packed sequences (cu_seqlens)")
    if name == "mask" and added.dtype != torch.bool:
        raise TypeError(f"mask is {added.dtype} and should be torch.bool, True where a key counts; did you mean bias?")
    if name == "bias" and not added.dtype.is_floating_point:
        raise TypeError(f"bias is {added.dtype} and should be torch.float32; did you mean mask?")
    if name == "bias" and added.requires_grad:
        raise ValueError("bias requires grad, and there is no gradient of the bias: call bias.detach()")
    if added.device != q.device:
        raise RuntimeError(f"q is on {q.device} and {name} on {added.device}: they should be on one GPU")
    whole = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    if added.dim() > 4 or any(
        size not in {1, of_whole} for size, of_whole in zip(reversed(added.shape), reversed(whole), strict=False)
    ):
        raise ValueError(
            f"{name} is {tuple(added.shape)}, which does not broadcast to (batch, heads, seqlen_q, seqlen_k) = {whole}"
        )


def check_packed(
    q: torch.Tensor,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
) -> None:
    """Refuse packed sequences that are only half described."""
    words = {
        "cu_seqlens_q": cu_seqlens_q,
        "cu_seqlens_k": cu_seqlens_k,
        "max_seqlen_q": max_seqlen_q,
        "max_seqlen_k": max_seqlen_k,
    }
    missing = [name for name, value in words.items() if value is None]
    if len(missing) == len(words):
        return
    if missing:
        raise ValueError(f"packed sequences need {', '.join(words)}: {', '.join(missing)} is not given")
    for name, sums in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        if sums is None:
            continue
        if sums.dtype != torch.int32 or sums.dim() != 1:
            raise TypeError(f"{name} is {sums.dtype} of {sums.dim()} dimensions, and should be torch.int32 of one")
        if sums.device != q.device:
            raise RuntimeError(f"q is on {q.device} and {name} on {sums.device}: they should be on one GPU")
    if cu_seqlens_q is not None and cu_seqlens_k is not None and cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_q has {cu_seqlens_q.shape[0]} numbers and cu_seqlens_k {cu_seqlens_k.shape[0]}: "
            "both should have one more than there are sequences"
        )


def check_dropout(dropout: float, seed: int | torch.Tensor | None) -> None:
    """Refuse a dropout that is no probability, and a seed of a wrong kind."""
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout is {dropout} and should be from 0 to 1")
    if isinstance(seed, torch.Tensor) and (seed.dtype != torch.int64 or seed.numel() != 1):
        raise TypeError(f"seed is a tensor of {seed.dtype} with {seed.numel()} numbers, and should be one torch.int64")
