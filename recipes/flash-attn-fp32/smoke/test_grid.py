"""Output, log-sum-exp and gradients against float64 over shapes and features; equal bits in every run."""

from __future__ import annotations

import pytest
import torch
from smoke_kit import HEAD_DIMS, Subject, make_inputs, reference, require_close

SHAPES = [
    # batch, seqlen_q, seqlen_k, heads, heads_k
    (2, 128, 128, 4, 4),
    (1, 1, 1, 2, 2),
    (1, 1, 300, 4, 2),
    (2, 200, 333, 4, 2),
    (1, 333, 200, 4, 1),
    (2, 63, 65, 3, 3),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_shapes(subject: Subject, head_dim: int, shape: tuple[int, ...], causal: bool) -> None:
    batch, seqlen_q, seqlen_k, heads, heads_k = shape
    inputs = make_inputs(
        batch=batch, seqlen_q=seqlen_q, seqlen_k=seqlen_k, heads=heads, heads_k=heads_k, head_dim=head_dim
    )
    require_close(subject, inputs, named={"causal": causal}, expected={"causal": causal})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_blocks_that_take_turns(subject: Subject, head_dim: int, causal: bool) -> None:
    """Enough heads that dQ is summed in memory, one block of keys after another; queries beside full blocks."""
    inputs = make_inputs(batch=3, seqlen_q=1000, seqlen_k=777, heads=32, heads_k=16, head_dim=head_dim)
    require_close(subject, inputs, named={"causal": causal}, expected={"causal": causal})


@pytest.mark.parametrize("head_dim", [64, 128])
def test_long(subject: Subject, head_dim: int) -> None:
    """Rounding grows with the number of blocks of keys, not with that of keys."""
    inputs = make_inputs(batch=1, seqlen_q=4096, seqlen_k=8192, heads=1, heads_k=1, head_dim=head_dim)
    require_close(subject, inputs, named={}, expected={})


@pytest.mark.parametrize(("head_dim", "head_dim_v"), [(16, 16), (40, 40), (72, 72), (128, 64), (32, 96), (1, 3)])
def test_padded_head_dims(subject: Subject, head_dim: int, head_dim_v: int) -> None:
    inputs = make_inputs(head_dim=head_dim, head_dim_v=head_dim_v)
    require_close(subject, inputs, named={}, expected={})


def test_softmax_scale(subject: Subject) -> None:
    inputs = make_inputs(seqlen_q=100, seqlen_k=90)
    require_close(subject, inputs, named={"softmax_scale": 0.3}, expected={"scale": 0.3})


@pytest.mark.parametrize("of", [(1, 1, 100, 150), (2, 4, 100, 150), (2, 1, 1, 150), (4, 100, 1), (100, 150), (150,)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["bias", "mask"])
def test_bias_and_mask(subject: Subject, kind: str, of: tuple[int, ...], causal: bool) -> None:
    inputs = make_inputs(seqlen_q=100, seqlen_k=150)
    added = torch.randn(of, generator=torch.Generator(device="cuda").manual_seed(1), device="cuda")
    words = {kind: added if kind == "bias" else added > 0.3}
    require_close(subject, inputs, named={"causal": causal, **words}, expected={"causal": causal, **words})


def test_mask_that_hides_everything(subject: Subject) -> None:
    """A query that sees no key gives zeros, -inf and no gradient."""
    inputs = make_inputs(seqlen_q=100, seqlen_k=150)
    mask = torch.ones(2, 1, 100, 150, dtype=torch.bool, device="cuda")
    mask[1, :, 7:70] = False
    require_close(subject, inputs, named={"mask": mask}, expected={"mask": mask})


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_strides(subject: Subject, head_dim: int) -> None:
    """Heads before rows, a slice of a larger tensor, odd addresses, a last dimension with gaps, a broadcast head."""
    inputs = make_inputs(head_dim=head_dim, heads=2, heads_k=2)
    plain, plain_lse = subject.attend(*inputs.leaves, return_lse=True)
    plain_gradients = torch.autograd.grad(plain, inputs.leaves, inputs.dout)

    def heads_first(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)

    def slice_of(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor], dim=-1)[..., : tensor.shape[-1]]

    def odd(tensor: torch.Tensor) -> torch.Tensor:
        room = torch.empty(tensor.numel() + 1, device="cuda")[1:].view(tensor.shape)
        return room.copy_(tensor)

    def gaps(tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack([tensor, tensor], dim=-1)[..., 0]

    for change in (heads_first, slice_of, odd, gaps):
        leaves = [change(tensor.detach()).requires_grad_() for tensor in inputs.leaves]
        out, lse = subject.attend(*leaves, return_lse=True)
        gradients = torch.autograd.grad(out, leaves, change(inputs.dout))
        for found, wanted in zip((out, lse, *gradients), (plain, plain_lse, *plain_gradients), strict=True):
            assert torch.equal(found, wanted), change.__name__


def test_expanded_gradient(subject: Subject) -> None:
    """The gradient of a sum has no strides at all."""
    inputs = make_inputs()
    found = torch.autograd.grad(subject.attend(*inputs.leaves).sum(), inputs.leaves)
    out = subject.attend(*inputs.leaves)
    for mine, wanted in zip(found, torch.autograd.grad(out, inputs.leaves, torch.ones_like(out)), strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("heads", [2, 64])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_equal_bits(subject: Subject, head_dim: int, heads: int) -> None:
    """Few heads and many: dQ by a kernel of its own, and in turn."""
    inputs = make_inputs(seqlen_q=700, seqlen_k=900, heads=heads, heads_k=heads, head_dim=head_dim)
    runs = []
    for _ in range(3):
        out, lse = subject.attend(*inputs.leaves, causal=True, return_lse=True)
        runs.append((out, lse, *torch.autograd.grad(out, inputs.leaves, inputs.dout)))
    for run in runs[1:]:
        assert all(torch.equal(found, wanted) for found, wanted in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0), (2, 0, 0)])
def test_empty(subject: Subject, shape: tuple[int, int, int]) -> None:
    batch, seqlen_q, seqlen_k = shape
    inputs = make_inputs(batch=batch, seqlen_q=seqlen_q, seqlen_k=seqlen_k)
    out, lse = subject.attend(*inputs.leaves, return_lse=True)
    gradients = torch.autograd.grad(out, inputs.leaves, inputs.dout)
    for found, like in zip((out, *gradients), (inputs.dout, *inputs.leaves), strict=True):
        assert torch.equal(found, torch.zeros_like(like))
    assert (lse == float("-inf")).all()


def test_gradient_of_lse(subject: Subject) -> None:
    """The log-sum-exp can be differentiated too, alone and beside the output."""
    inputs = make_inputs(seqlen_q=70, seqlen_k=90, heads_k=4)
    for with_out in (False, True):
        out, lse = subject.attend(*inputs.leaves, return_lse=True)
        weight = torch.linspace(-1, 1, lse.numel(), device="cuda").view(lse.shape)
        loss = (lse * weight).sum() + ((out * inputs.dout).sum() if with_out else 0.0)
        found = torch.autograd.grad(loss, inputs.leaves, allow_unused=True)
        leaves = [tensor.detach().double().requires_grad_() for tensor in inputs.leaves]
        scores = torch.einsum("bqhd,bkhd->bhqk", leaves[0], leaves[1]) * 64**-0.5
        exact_out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), leaves[2])
        exact = (scores.logsumexp(-1) * weight).sum() + ((exact_out * inputs.dout).sum() if with_out else 0.0)
        wanted = torch.autograd.grad(exact, leaves, allow_unused=True)
        for mine, right in zip(found, wanted, strict=True):
            expected = torch.zeros_like(mine).double() if right is None else right
            assert float((mine - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-6


def test_gradcheck(subject: Subject) -> None:
    """The gradients are those of the function: differences of the float64 reference along random directions."""
    inputs = make_inputs(batch=1, seqlen_q=9, seqlen_k=7, heads=2, heads_k=1, head_dim=32)
    out = subject.attend(*inputs.leaves, causal=True)
    found = torch.autograd.grad(out, inputs.leaves, inputs.dout)

    class Emulated(torch.autograd.Function):
        """The function in float64, its gradients from the kernels in float32."""

        @staticmethod
        def forward(_: object, *leaves: torch.Tensor) -> torch.Tensor:
            return reference(*leaves, causal=True)[0]

        @staticmethod
        def backward(_: object, dout: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.enable_grad():
                again = subject.attend(*inputs.leaves, causal=True)
            return tuple(grad.double() for grad in torch.autograd.grad(again, inputs.leaves, dout.float()))

    leaves = tuple(tensor.detach().double().requires_grad_() for tensor in inputs.leaves)
    assert torch.autograd.gradcheck(Emulated.apply, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)
    assert all(torch.isfinite(gradient).all() for gradient in found)
