"""The ways a call is run: other streams, CUDA graphs, torch.compile, odd strides. Each gives an eager call's bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from smoke_kit import Inputs, Subject, bits, make_inputs, require_equal_bits, require_equal_results

Call = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def call_of(subject: Subject, inputs: Inputs, *, causal: bool) -> Call:
    """The wheel's function of q, k and v alone."""

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = subject.interface.flash_attn_func(q, k, v, causal=causal, **inputs.descales, return_attn_probs=True)
        return out, lse

    return call


def occupy(matrix: torch.Tensor) -> None:
    """Keep the current stream busy for some tens of milliseconds."""
    for _ in range(20):
        torch.matmul(matrix, matrix)


@pytest.mark.parametrize("causal", [False, True])
def test_side_stream(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    """The kernels wait for their own stream's work: q arrives late there, and was zero before."""
    inputs = make_inputs(seqlen_q=500, seqlen_k=500, head_dim=subject.head_dim, dtype=dtype)
    call = call_of(subject, inputs, causal=causal)
    expected = call(inputs.q, inputs.k, inputs.v)
    late = torch.zeros_like(inputs.q)
    matrix = torch.zeros(8192, 8192, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        occupy(matrix)
        late.copy_(inputs.q)
        found = call(late, inputs.k, inputs.v)
    torch.cuda.current_stream().wait_stream(side)
    require_equal_results(found, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_cuda_graph(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    """A captured call, replayed on inputs it has not seen."""
    held = make_inputs(seqlen_q=300, seqlen_k=500, head_dim=subject.head_dim, dtype=dtype)
    fresh = make_inputs(seqlen_q=300, seqlen_k=500, head_dim=subject.head_dim, dtype=dtype, seed=1)
    call = call_of(subject, held, causal=causal)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(held.q, held.k, held.v)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(held.q, held.k, held.v)
    for name in ("q", "k", "v"):
        getattr(held, name).copy_(getattr(fresh, name))
    for _ in range(2):
        for result in found:
            result.zero_()
        graph.replay()
        require_equal_results(found, call(fresh.q, fresh.k, fresh.v))


@pytest.fixture
def fresh_compiler() -> None:
    """Forget what was compiled, so that each test compiles for itself."""
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("causal", [False, True])
def test_compile(subject: Subject, dtype: torch.dtype, causal: bool, backend: str) -> None:
    inputs = make_inputs(seqlen_q=300, seqlen_k=500, heads=8, heads_k=2, head_dim=subject.head_dim, dtype=dtype)
    call = call_of(subject, inputs, causal=causal)
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    require_equal_results(compiled(inputs.q, inputs.k, inputs.v), call(inputs.q, inputs.k, inputs.v))


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_for_any_length(subject: Subject) -> None:
    """One graph with symbolic lengths and work before and after."""

    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = subject.interface.flash_attn_func(q * 2, k, v, causal=True)
        return out.flatten(2) + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (100, 333):
        inputs = make_inputs(seqlen_q=length, seqlen_k=length, head_dim=subject.head_dim)
        require_equal_bits(compiled(inputs.q, inputs.k, inputs.v), layer(inputs.q, inputs.k, inputs.v))


@pytest.mark.needs("VARLEN")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_packed_sequences(subject: Subject, backend: str) -> None:
    inputs = make_inputs(batch=1, seqlen_q=300, seqlen_k=300, head_dim=subject.head_dim)
    ends = torch.tensor([0, 57, 58, 300], dtype=torch.int32, device="cuda")
    longest = 300 - 58

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = subject.interface.flash_attn_varlen_func(
            q, k, v, ends, ends, longest, longest, causal=True, return_attn_probs=True
        )
        return out, lse

    flat = (inputs.q[0], inputs.k[0], inputs.v[0])
    require_equal_results(torch.compile(call, fullgraph=True, backend=backend)(*flat), call(*flat))


@pytest.mark.needs("APPENDKV", "VARLEN")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_appending_to_a_cache(subject: Subject, backend: str) -> None:
    """The compiled graph writes into the caller's cache."""
    cache = make_inputs(seqlen_q=2, seqlen_k=200, head_dim=subject.head_dim)
    new = make_inputs(seqlen_q=2, seqlen_k=2, head_dim=subject.head_dim, seed=1)
    used = torch.tensor([150, 33], dtype=torch.int32, device="cuda")

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = subject.interface.flash_attn_with_kvcache(
            q, k, v, new.k, new.v, cache_seqlens=used, causal=True, num_splits=1
        )
        return out

    eager = (cache.q, cache.k.clone(), cache.v.clone())
    graph = (cache.q, cache.k.clone(), cache.v.clone())
    require_equal_bits(torch.compile(call, fullgraph=True, backend=backend)(*graph), call(*eager))
    require_equal_bits(graph[1], eager[1])
    require_equal_bits(graph[2], eager[2])
    assert not torch.equal(graph[1], cache.k)


def heads_first(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def every_second(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2]


def part_of_wider_rows(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor, tensor, tensor], dim=2)[:, :, 1]


@pytest.mark.parametrize("layout", [heads_first, every_second, part_of_wider_rows])
def test_strides(subject: Subject, dtype: torch.dtype, layout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    inputs = make_inputs(seqlen_q=113, seqlen_k=203, head_dim=subject.head_dim, dtype=dtype)
    call = call_of(subject, inputs, causal=True)
    strided = [layout(bits(tensor)).view(dtype) for tensor in (inputs.q, inputs.k, inputs.v)]
    assert not any(tensor.is_contiguous() for tensor in strided)
    require_equal_results(call(*strided), call(inputs.q, inputs.k, inputs.v))
