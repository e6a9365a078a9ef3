"""Dropout: the weights kept are those of the seed, in forward and backward, and their number is right."""

from __future__ import annotations

import pytest
import torch
from smoke_kit import HEAD_DIMS, Subject, make_inputs, require_close


def kept(subject: Subject, shape: tuple[int, int, int, int], head_dim: int, dropout: float, seed: int) -> torch.Tensor:
    """Factors of the weights, (batch, heads, seqlen_q, seqlen_k): read from outputs whose values are unit vectors."""
    batch, seqlen_q, seqlen_k, heads = shape
    q = torch.zeros(batch, seqlen_q, heads, head_dim, device="cuda")
    k = torch.zeros(batch, seqlen_k, heads, head_dim, device="cuda")
    parts = []
    for begin in range(0, seqlen_k, head_dim):
        v = torch.zeros_like(k)
        for column in range(min(head_dim, seqlen_k - begin)):
            v[:, begin + column, :, column] = 1.0
        out = subject.attend(q, k, v, dropout=dropout, seed=seed) * seqlen_k
        parts.append(out[..., : min(head_dim, seqlen_k - begin)].permute(0, 2, 1, 3))
    return torch.cat(parts, dim=-1)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_gradients_of_the_same_weights(subject: Subject, head_dim: int, dropout: float) -> None:
    keep = kept(subject, (2, 130, 150, 4), head_dim, dropout, seed=7)
    inputs = make_inputs(seqlen_q=130, seqlen_k=150, head_dim=head_dim)
    require_close(
        subject,
        inputs,
        named={"dropout": dropout, "seed": 7, "causal": True},
        expected={"keep": keep.double(), "causal": True},
    )


@pytest.mark.parametrize("heads", [64])
def test_gradients_in_turn(subject: Subject, heads: int) -> None:
    keep = kept(subject, (2, 500, 300, heads), 64, 0.2, seed=3)
    inputs = make_inputs(seqlen_q=500, seqlen_k=300, heads=heads, heads_k=heads)
    require_close(subject, inputs, named={"dropout": 0.2, "seed": 3}, expected={"keep": keep.double()})


@pytest.mark.parametrize("dropout", [0.05, 0.3, 0.9])
def test_share_kept(subject: Subject, dropout: float) -> None:
    """Within five standard deviations, in all and along each axis; kept weights grow by 1 / (1 - dropout)."""
    keep = kept(subject, (2, 256, 256, 4), 64, dropout, seed=1)
    ones = (keep > 0).double()
    assert torch.allclose(keep[keep > 0], torch.tensor(1 / (1 - dropout), device="cuda"), rtol=1e-5)
    for axes in ((0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)):
        number = ones.numel() // ones.mean(axes).numel()
        deviation = (dropout * (1 - dropout) / number) ** 0.5
        assert float((ones.mean(axes) - (1 - dropout)).abs().max()) <= 5 * deviation


def test_neighbours_are_independent(subject: Subject) -> None:
    """No correlation between neighbours along any axis, nor between seeds."""
    first = (kept(subject, (2, 256, 256, 4), 64, 0.5, seed=1) > 0).double() - 0.5
    other = (kept(subject, (2, 256, 256, 4), 64, 0.5, seed=2) > 0).double() - 0.5
    pairs = [(first, first.roll(1, axis)) for axis in range(4)] + [(first, other), (first, first.transpose(2, 3))]
    for left, right in pairs:
        correlation = float((left * right).mean()) * 4
        assert abs(correlation) <= 5 / left.numel() ** 0.5 + 2 / 256  # the diagonal is its own transpose


def test_seeds(subject: Subject) -> None:
    """A number and a tensor mean the same; without one it follows torch's generator."""
    inputs = make_inputs()
    words = {"dropout": 0.5}
    by_number = subject.attend(*inputs.leaves, seed=2**61 + 5, **words)
    by_tensor = subject.attend(*inputs.leaves, seed=torch.tensor([2**61 + 5], device="cuda"), **words)
    assert torch.equal(by_number, by_tensor)
    assert not torch.equal(by_number, subject.attend(*inputs.leaves, seed=5, **words))  # the high half counts
    torch.manual_seed(3)
    drawn, next_drawn = (subject.attend(*inputs.leaves, **words) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(drawn, subject.attend(*inputs.leaves, **words))
    assert not torch.equal(drawn, next_drawn)


def test_everything_dropped(subject: Subject) -> None:
    inputs = make_inputs()
    out = subject.attend(*inputs.leaves, dropout=1.0)
    gradients = torch.autograd.grad(out, inputs.leaves, inputs.dout)
    for found in (out, *gradients):
        assert torch.equal(found, torch.zeros_like(found))


def test_module_drops_in_training_alone(subject: Subject) -> None:
    inputs = make_inputs()
    module = subject.package.FlashAttention(dropout=0.5, causal=True)
    assert not torch.equal(module(*inputs.leaves, seed=1), module(*inputs.leaves, seed=2))
    module.eval()
    assert torch.equal(module(*inputs.leaves), subject.attend(*inputs.leaves, causal=True))
