"""Packed sequences (cu_seqlens): each as if it were alone, empty ones among them."""

from __future__ import annotations

import pytest
import torch
from smoke_kit import HEAD_DIMS, Inputs, Subject, make_inputs, require_close

LENGTHS_Q = [70, 0, 1, 200, 33, 5]
LENGTHS_K = [90, 3, 150, 200, 0, 2]


def sums(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32, device="cuda").cumsum(0, dtype=torch.int32)


def packed(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.detach()[0].requires_grad_() for tensor in inputs.leaves)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_each_as_if_alone(subject: Subject, head_dim: int, causal: bool) -> None:
    """Bit for bit: a sequence's blocks are the same, wherever it lies."""
    whole = make_inputs(batch=1, seqlen_q=sum(LENGTHS_Q), seqlen_k=sum(LENGTHS_K), head_dim=head_dim)
    q, k, v = packed(whole)
    out, lse = subject.attend(
        q,
        k,
        v,
        causal=causal,
        cu_seqlens_q=sums(LENGTHS_Q),
        cu_seqlens_k=sums(LENGTHS_K),
        max_seqlen_q=max(LENGTHS_Q),
        max_seqlen_k=max(LENGTHS_K),
        return_lse=True,
    )
    gradients = torch.autograd.grad(out, (q, k, v), whole.dout[0])
    begin_q = begin_k = 0
    for length_q, length_k in zip(LENGTHS_Q, LENGTHS_K, strict=True):
        rows, keys = slice(begin_q, begin_q + length_q), slice(begin_k, begin_k + length_k)
        begin_q, begin_k = rows.stop, keys.stop
        alone = Inputs(
            *(tensor.detach()[None, part].requires_grad_() for tensor, part in ((q, rows), (k, keys), (v, keys))),
            whole.dout[:, rows],
        )
        if length_q > 0 and length_k > 0:
            require_close(subject, alone, named={"causal": causal}, expected={"causal": causal})
        alone_out, alone_lse = subject.attend(*alone.leaves, causal=causal, return_lse=True)
        alone_gradients = torch.autograd.grad(alone_out, alone.leaves, alone.dout)
        assert torch.equal(out[rows], alone_out[0])
        assert torch.equal(lse[:, rows], alone_lse[0])
        for found, part, wanted in zip(gradients, (rows, keys, keys), alone_gradients, strict=True):
            assert torch.equal(found[part], wanted[0])


def test_turns_in_packed_sequences(subject: Subject) -> None:
    """Many heads: dQ is summed in turn, by the numbers of each sequence."""
    lengths = [700, 64, 1, 935]
    whole = make_inputs(batch=1, seqlen_q=sum(lengths), seqlen_k=sum(lengths), heads=64, heads_k=64)
    q, k, v = packed(whole)
    words = {"cu_seqlens_q": sums(lengths), "cu_seqlens_k": sums(lengths), "max_seqlen_q": 935, "max_seqlen_k": 935}
    out = subject.attend(q, k, v, causal=True, **words)
    gradients = torch.autograd.grad(out, (q, k, v), whole.dout[0])
    begin = 0
    for length in lengths:
        rows = slice(begin, begin + length)
        begin = rows.stop
        leaves = [tensor.detach()[None, rows].requires_grad_() for tensor in (q, k, v)]
        alone = torch.autograd.grad(subject.attend(*leaves, causal=True), leaves, whole.dout[:, rows])
        for found, wanted in zip(gradients, alone, strict=True):
            assert float((found[rows] - wanted[0]).norm()) <= 1e-5 * float(wanted.norm())


def leave_nan_in_free_memory(*like: torch.Tensor) -> None:
    """What is freed here is what torch hands out next for these sizes."""
    poisoned = [torch.full_like(tensor, float("nan"), requires_grad=False) for tensor in like]
    del poisoned


@pytest.mark.parametrize("head_dim", [64, 128])
def test_rows_behind_the_last_sequence(subject: Subject, head_dim: int) -> None:
    """Rows of no sequence: zeros in output and gradients, whatever lay in that memory before."""
    lengths, behind = [70, 33], 50
    whole = make_inputs(batch=1, seqlen_q=sum(lengths) + behind, seqlen_k=sum(lengths) + behind, head_dim=head_dim)
    q, k, v = packed(whole)
    leave_nan_in_free_memory(q, k, v)
    words = {"cu_seqlens_q": sums(lengths), "cu_seqlens_k": sums(lengths), "max_seqlen_q": 70, "max_seqlen_k": 70}
    out, lse = subject.attend(q, k, v, **words, return_lse=True)
    leave_nan_in_free_memory(q, k, v)
    gradients = torch.autograd.grad(out, (q, k, v), whole.dout[0])
    for tensor in (out, *gradients):
        assert tensor[: sum(lengths)].isfinite().all()
        assert (tensor[sum(lengths) :] == 0).all()
    assert (lse[:, sum(lengths) :] == float("-inf")).all()
