"""Small calls of every kernel, for a tool that watches each access to memory.

    for tool in memcheck racecheck; do
        compute-sanitizer --tool $tool --error-exitcode 1 python3 small_shapes.py flash_attn_fp32-....whl [head dims]
    done

Two blocks of rows and columns and a part of a third, with all that a score can be changed by; once with so many heads
that dQ is summed in turn. Needs torch and the wheel alone.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from typing import Any

import torch

HEAD_DIMS = ("32", "64", "96", "128")


def call(attend: Any, size: tuple[int, int, int, int, int], **words: Any) -> None:
    """Forward and backward for (seqlen_q, seqlen_k, heads, heads_k, head_dim)."""
    seqlen_q, seqlen_k, heads, heads_k, head_dim = size
    q = torch.randn(1, seqlen_q, heads, head_dim, device="cuda", requires_grad=True)
    k, v = (torch.randn(1, seqlen_k, heads_k, head_dim, device="cuda", requires_grad=True) for _ in range(2))
    out = attend(q, k, v, **words)
    gradients = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    if not all(bool(tensor.isfinite().all()) for tensor in (out, *gradients)):
        raise ArithmeticError(f"a result of {size} is not finite")


def main(wheel: str, *head_dims: str) -> None:
    """Call the kernels of each head dimension, or of those named."""
    with tempfile.TemporaryDirectory(prefix="small-shapes-") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        sys.path.insert(0, folder)
        from flash_attention import flash_attention  # noqa: PLC0415  # it lies in the wheel

        for head_dim in map(int, head_dims or HEAD_DIMS):
            call(flash_attention, (70, 140, 2, 1, head_dim), causal=True)
            bias = torch.randn(70, 80, device="cuda")
            call(flash_attention, (70, 80, 2, 2, head_dim), bias=bias, dropout=0.3, seed=1)
            call(flash_attention, (65, 70, 334, 334, head_dim))


if __name__ == "__main__":
    main(*sys.argv[1:])
