"""Gradients of parts that are merged: those of attention over all their keys, by every kernel that takes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hopper_attention import available, dilated_attention
from hopper_attention._merge import merge
from hopper_attention._parts import KERNELS, Kernel, part, shifted
from reference import dilated, reference

SPLITS = [(24,), (16, 8), (3, 5, 16)]
SCALE = 0.4
HALVES = (slice(0, 12), slice(12, 24))


def gradients(
    inputs: list[torch.Tensor], split: tuple[int, ...], pull: torch.Tensor, *, repeated: bool, severed: bool = False
) -> tuple[torch.Tensor, ...]:
    """Output and gradients over keys that are attended to in parts; `repeated` has the first part count twice."""
    q, k, v = inputs
    pieces = list(zip(k.split(split, 2), v.split(split, 2), strict=True))
    parts = [part("cpu", q, key, value, causal=False, scale=SCALE) for key, value in pieces + pieces[: int(repeated)]]
    rows = [(out.transpose(1, 2), lse.detach() if severed else lse) for out, lse in parts]
    out, _ = merge(rows)
    return (out, *torch.autograd.grad((out * pull).sum(), inputs))


@pytest.mark.parametrize("repeated", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_parts_have_the_gradients_of_the_whole(split: tuple[int, ...], repeated: bool) -> None:
    """In float64 against the definition; without the gradient of the log-sum-exp they would be others."""
    inputs = [torch.randn(2, 3, length, 8, dtype=torch.float64).requires_grad_() for length in (10, 24, 24)]
    pull = torch.randn(2, 10, 3, 8, dtype=torch.float64)
    rows = [tensor.transpose(1, 2) for tensor in inputs]
    wanted, _ = reference(*rows, counts=lambda _, __, key: 2 if repeated and key < split[0] else 1, scale=SCALE)
    right = (wanted, *torch.autograd.grad((wanted * pull).sum(), inputs))
    for found, one in zip(gradients(inputs, split, pull, repeated=repeated), right, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-11, atol=1e-12)
    if len(split) > 1:
        without = gradients(inputs, split, pull, repeated=repeated, severed=True)
        assert (without[1] - right[1]).abs().max() > 1e-3
        assert (without[2] - right[2]).abs().max() > 1e-3


def test_a_compiled_graph_has_the_same_gradients() -> None:
    """In float32: torch's compiler takes the log-sum-exp of this kernel for float32 whatever q is."""
    inputs = [torch.randn(2, 3, length, 8).requires_grad_() for length in (10, 24, 24)]
    pull = torch.randn(2, 10, 3, 8)

    def merged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = [part("cpu", q, k[:, :, half], v[:, :, half], causal=False, scale=SCALE) for half in HALVES]
        return merge([(out.transpose(1, 2), lse) for out, lse in parts])[0]

    compiled = torch.compile(merged, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad((compiled(*inputs) * pull).sum(), inputs)
    right = torch.autograd.grad((merged(*inputs) * pull).sum(), inputs)
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other)


def test_what_else_a_kernel_keeps_comes_back_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, numbers, and None for what a kernel does not use, as those of GPUs return."""
    cpu, mark, told = KERNELS["cpu"], torch.ones(3), []

    def forward(*words: Any) -> tuple[Any, ...]:
        return (*cpu.forward(*words), None, 7, mark, None)

    def backward(do: torch.Tensor, saved: tuple[Any, ...], causal: bool, scale: float) -> tuple[torch.Tensor, ...]:
        told.extend(saved[5:])
        return cpu.backward(do, saved[:5], causal, scale)

    monkeypatch.setitem(KERNELS, "more", Kernel(forward, backward))
    q = torch.randn(1, 2, 4, 8, requires_grad=True)
    out, _ = part("more", q, q, q, causal=True, scale=SCALE)
    out.sum().backward()
    assert (told[0], told[1], told[3], len(told)) == (None, 7, None, 4)
    assert torch.equal(told[2], mark)


@pytest.mark.parametrize("kernel", ["sdpa_cudnn", "sdpa_flash"])
def test_the_operators_of_gpus_take_what_they_are_handed(kernel: str) -> None:
    """Forward and backward by shapes alone, on tensors without elements: what torch says the operators return."""
    rows = [torch.randn(2, 64, 4, 128, device="meta", dtype=torch.bfloat16) for _ in range(3)]
    inputs = [tensor.transpose(1, 2).requires_grad_() for tensor in rows]
    out, lse = part(kernel, *inputs, causal=True, scale=SCALE)
    assert (out.shape, lse.shape, lse.dtype) == (inputs[0].shape, inputs[0].shape[:-1], torch.float32)
    for gradient in torch.autograd.grad(out.sum() + lse.sum(), inputs):
        assert gradient.shape == inputs[0].shape


def test_a_part_of_almost_no_share_shifts_no_output_far() -> None:
    """Gradients of 1e-30, whose squares underflow in float32, and of zero."""
    out, other = torch.randn(2, 4, 16)
    do = torch.randn(4, 16) * 1e-30
    do[0] = 0.0
    of_lse = (do * (out - other)).sum(-1)
    moved = shifted(out, do, of_lse)
    assert torch.equal(moved[0], out[0])
    assert ((moved - out).norm(dim=-1) <= 1.001 * (out - other).norm(dim=-1)).all()
    told = (do * 1e30 * (out - moved)).sum(-1)
    torch.testing.assert_close(told, of_lse * 1e30)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_dilated_attention_trains_by_every_backend_that_says_so(
    head_dim: int, causal: bool, device: torch.device
) -> None:
    """bfloat16 against float64; where there is a GPU, by the kernels of SDPA as well, and the fastest first."""
    pairs, seqlen, heads = ((32, 64), (1, 2)), 64, 4
    dtype = torch.bfloat16
    doubles = [torch.randn(2, seqlen, heads, head_dim).to(dtype).double().requires_grad_() for _ in range(3)]
    wanted, _ = reference(*doubles, counts=dilated(*pairs, causal=causal, shared=1))
    pull = torch.randn_like(wanted).to(dtype)
    right = torch.autograd.grad((wanted * pull.double()).sum(), doubles)
    inputs = [tensor.detach().to(device, dtype).requires_grad_() for tensor in doubles]
    words = {"segment_lengths": pairs[0], "dilation_rates": pairs[1], "causal": causal}
    names = {row.name for row in available() if row.usable} & {"sdpa_cudnn", "sdpa_flash", "eager"}
    assert names == ({"sdpa_cudnn", "sdpa_flash", "eager"} if device.type == "cuda" else {"eager"})
    for name in (*sorted(names), None):
        out = dilated_attention(*inputs, backend=name, **words)
        found = torch.autograd.grad((out * pull.to(device)).sum(), inputs)
        for one, of_definition in zip((out, *found), (wanted, *right), strict=True):
            largest = max(1.0, of_definition.abs().max().item())
            furthest = (one.detach().cpu().double() - of_definition.detach()).abs().max().item()
            assert math.isfinite(furthest)
            assert furthest <= 2e-2 * largest, (name, furthest, largest)
