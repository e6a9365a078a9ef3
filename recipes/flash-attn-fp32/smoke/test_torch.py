"""What torch asks of an operator: opcheck, torch.compile, autocast, checkpointing, streams, graphs, double backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from smoke_kit import Subject, make_inputs


def arguments(inputs: Any, **named: Any) -> tuple[Any, ...]:
    words = {"bias": None, "mask": None, "causal": True, "dropout": 0.0, "seed": None, **named}
    tail = (words["bias"], words["mask"], 0.125, words["causal"], words["dropout"], words["seed"])
    return (*inputs.leaves, None, None, inputs.q.shape[1], inputs.k.shape[1], *tail)


@pytest.mark.parametrize("extra", ["plain", "bias", "mask", "dropout"])
def test_opcheck(subject: Subject, extra: str) -> None:  # noqa: ARG001  # the subject registers the operators
    inputs = make_inputs(seqlen_q=33, seqlen_k=40)
    random = torch.randn(1, 4, 33, 40, device="cuda")
    seed = torch.tensor([5], device="cuda")
    words: dict[str, dict[str, Any]] = {
        "plain": {},
        "bias": {"bias": random},
        "mask": {"mask": random > 0},
        "dropout": {"dropout": 0.5, "seed": seed},
    }
    call = arguments(inputs, **words[extra])
    torch.library.opcheck(torch.ops.flash_attention.forward.default, call)
    out, lse = torch.ops.flash_attention.forward(*call)
    detached = tuple(value.detach() if isinstance(value, torch.Tensor) else value for value in call)
    rest = (*detached[:3], out.detach(), lse.detach(), *detached[3:])
    torch.library.opcheck(torch.ops.flash_attention.backward.default, (inputs.dout, None, *rest))


def test_opcheck_packed(subject: Subject) -> None:  # noqa: ARG001
    inputs = make_inputs(batch=1, seqlen_q=33, seqlen_k=33)
    leaves = tuple(tensor.detach()[0].requires_grad_() for tensor in inputs.leaves)
    sums = torch.tensor([0, 10, 33], dtype=torch.int32, device="cuda")
    call = (*leaves, sums, sums, 23, 23, None, None, 0.125, True, 0.0, None)
    torch.library.opcheck(torch.ops.flash_attention.forward.default, call)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(subject: Subject, backend: str, dynamic: bool) -> None:
    """One graph, the same bits; with padding, GQA and what autograd saves."""
    torch._dynamo.reset()  # noqa: SLF001

    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return subject.attend(q, k, v, causal=True) * 1.0

    compiled = torch.compile(block, fullgraph=True, backend=backend, dynamic=dynamic)
    for seqlen in (40, 72):
        inputs = make_inputs(seqlen_q=seqlen, seqlen_k=seqlen, head_dim=48)
        found = compiled(*inputs.leaves)
        wanted = block(*inputs.leaves)
        gradients = torch.autograd.grad(found, inputs.leaves, inputs.dout)
        assert torch.equal(found, wanted)
        for mine, right in zip(gradients, torch.autograd.grad(wanted, inputs.leaves, inputs.dout), strict=True):
            assert torch.equal(mine, right)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(subject: Subject, dtype: torch.dtype) -> None:
    """Whatever comes is cast to float32; gradients come back in the caller's dtype."""
    inputs = make_inputs()
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs.leaves]
    with torch.autocast("cuda", dtype=dtype):
        out = subject.attend(*leaves)
    assert out.dtype == torch.float32
    wanted = subject.attend(*(leaf.detach().float() for leaf in leaves))
    assert torch.equal(out, wanted)
    assert [grad.dtype for grad in torch.autograd.grad(out, leaves, inputs.dout)] == [dtype] * 3


def test_double_backward(subject: Subject) -> None:
    inputs = make_inputs()
    (dq,) = torch.autograd.grad(subject.attend(*inputs.leaves).square().sum(), inputs.q, create_graph=True)
    with pytest.raises(RuntimeError, match="flash_attention has no second derivative"):
        torch.autograd.grad(dq.sum(), inputs.q)


def test_checkpointing(subject: Subject) -> None:
    """The drawn seed is restored with torch's generator, so the recomputed weights are those of the forward pass."""
    inputs = make_inputs()

    def block(*leaves: torch.Tensor) -> torch.Tensor:
        return subject.attend(*leaves, dropout=0.5).sin()

    torch.manual_seed(5)
    plain = torch.autograd.grad(block(*inputs.leaves), inputs.leaves, inputs.dout)
    torch.manual_seed(5)
    again = torch.utils.checkpoint.checkpoint(block, *inputs.leaves, use_reentrant=False)
    for found, wanted in zip(torch.autograd.grad(again, inputs.leaves, inputs.dout), plain, strict=True):
        assert torch.equal(found, wanted)


def test_side_stream(subject: Subject) -> None:
    """The kernels wait for their own stream's work: q arrives late there, and was zero before."""
    inputs = make_inputs(seqlen_q=500, seqlen_k=500)
    wanted = subject.attend(*inputs.leaves)
    late = torch.zeros_like(inputs.q)
    matrix = torch.zeros(8192, 8192, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):  # keeps the stream busy for some hundreds of milliseconds
            torch.matmul(matrix, matrix)
        late.copy_(inputs.q.detach())
        found = subject.attend(late, inputs.k, inputs.v)
    stream.synchronize()
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("heads", [2, 128])
def test_cuda_graph(subject: Subject, heads: int) -> None:
    """Forward and backward are recorded and replayed, with a new seed each time."""
    inputs = make_inputs(seqlen_q=500, seqlen_k=500, heads=heads, heads_k=heads)
    seed = torch.tensor([1], device="cuda")

    def step() -> tuple[torch.Tensor, ...]:
        out = subject.attend(*inputs.leaves, dropout=0.3, seed=seed)
        return (out, *torch.autograd.grad(out, inputs.leaves, inputs.dout))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for number in (1, 2):
        seed.fill_(number)
        graph.replay()
        for found, wanted in zip(recorded, step(), strict=True):
            assert torch.equal(found, wanted)


def test_memory_is_linear(subject: Subject) -> None:
    """Twice the length takes twice the memory, forward and backward."""
    peaks = []
    for seqlen in (4096, 8192):
        inputs = make_inputs(batch=1, seqlen_q=seqlen, seqlen_k=seqlen, heads=4, heads_k=4)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.grad(subject.attend(*inputs.leaves), inputs.leaves, inputs.dout)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 2.1 * peaks[0]
    assert peaks[1] <= 8 * inputs.q.numel() * 4
