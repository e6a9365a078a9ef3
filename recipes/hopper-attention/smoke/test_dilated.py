"""Dilated attention against the definition: a dense table of how often each key counts."""

from __future__ import annotations

import pytest
import torch
from hopper_attention import DilatedAttention, MultiheadDilatedAttention, dilated_attention
from reference import dilated, reference

PAIRS = [
    ((4,), (1,)),
    ((8,), (2,)),
    ((4, 8, 16), (1, 2, 4)),
    ((4, 16), (2, 4)),
    ((5, 12), (1, 3)),
    ((5, 7), (2, 3)),
    ((64, 4), (3, 1)),
]
LENGTHS = [1, 3, 16, 29]
HEADS = [(4, 4), (6, 2), (1, 1)]


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Compare in parts of the largest value expected."""
    assert (found.detach().cpu().double() - wanted).abs().max() <= tolerance * max(1.0, wanted.abs().max().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("seqlen", LENGTHS)
@pytest.mark.parametrize("pairs", PAIRS, ids=str)
def test_forward_and_backward(
    *,
    pairs: tuple[tuple[int, ...], tuple[int, ...]],
    seqlen: int,
    heads: tuple[int, int],
    causal: bool,
    dtype: torch.dtype,
    tolerance: float,
    device: torch.device,
) -> None:
    sizes = [(2, seqlen, heads[0], 8), (2, seqlen, heads[1], 8), (2, seqlen, heads[1], 12)]
    doubles = [torch.randn(size, dtype=torch.float64).to(dtype).double().requires_grad_() for size in sizes]
    inputs = [tensor.detach().to(device, dtype).requires_grad_() for tensor in doubles]
    counts = dilated(*pairs, causal=causal, shared=heads[0] // heads[1])
    wanted, _ = reference(*doubles, counts=counts, scale=0.4)
    out = dilated_attention(*inputs, segment_lengths=pairs[0], dilation_rates=pairs[1], causal=causal, scale=0.4)
    assert out.dtype == dtype
    near(out, wanted.detach(), tolerance)
    pull = torch.randn_like(wanted)
    found = torch.autograd.grad((out * pull.to(out)).sum(), inputs)
    for one, right in zip(found, torch.autograd.grad((wanted * pull).sum(), doubles), strict=True):
        near(one, right, 10 * tolerance)


@pytest.mark.parametrize("pairs", [((8,), (1,)), ((8, 16), (1, 2)), ((8, 16), (1, 3))], ids=str)
def test_outputs_are_of_the_dtype_that_attention_gives(
    pairs: tuple[tuple[int, ...], tuple[int, ...]], device: torch.device
) -> None:
    """However many pairs are put together: autocast's, and of float8 bfloat16."""
    q, k, v = torch.randn(3, 2, 16, 4, 16, device=device)
    words = {"segment_lengths": pairs[0], "dilation_rates": pairs[1]}
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = dilated_attention(q, k, v, **words)
    assert out.dtype == torch.bfloat16
    near(out, dilated_attention(q.double(), k.double(), v.double(), **words).cpu(), 4e-2)
    narrow = [tensor.to(torch.float8_e4m3fn) for tensor in (q, k, v)]
    out = dilated_attention(*narrow, **words, backend="eager")
    assert out.dtype == torch.bfloat16
    near(out, dilated_attention(*(tensor.double() for tensor in narrow), **words).cpu(), 2e-2)


def test_dropout_is_for_training(device: torch.device) -> None:
    """With values of one an output is the sum of the weights left: one on average, one exactly without dropout."""
    module = DilatedAttention((16, 64), (1, 2), dropout=0.5)
    q, k = torch.randn(2, 2, 64, 4, 8, device=device)
    v = torch.ones_like(k)
    assert abs(module(q, k, v).mean().item() - 1.0) < 0.05
    assert module(q, k, v).std().item() > 0.1
    torch.testing.assert_close(module.eval()(q, k, v), v)


def test_the_layer_has_a_gradient_for_every_weight(device: torch.device) -> None:
    layer = MultiheadDilatedAttention(32, 4, (8, 16), (1, 2), key_heads=2, causal=True).to(device)
    x = torch.randn(2, 20, 32, device=device)
    out = layer(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in layer.parameters())


def test_the_layer_does_not_look_ahead(device: torch.device) -> None:
    layer = MultiheadDilatedAttention(32, 4, (8, 16), (1, 2), causal=True).to(device)
    x = torch.randn(1, 20, 32, device=device)
    torch.testing.assert_close(layer(x)[:, :9], layer(x[:, :9]))


def test_a_compiled_graph_gives_the_same(device: torch.device) -> None:
    layer = MultiheadDilatedAttention(32, 4, (8, 16), (1, 2), causal=True).to(device)
    x = torch.randn(2, 20, 32, device=device)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


@pytest.mark.parametrize(
    ("lengths", "rates", "said"),
    [
        ((4, 8), (1,), "2 segment lengths and 1 dilation rates"),
        ((), (), "and some"),
        ((0,), (1,), "segment length 0"),
        ((4,), (0,), "dilation rate 0"),
    ],
)
def test_pairs_that_cannot_be_are_refused(lengths: tuple[int, ...], rates: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DilatedAttention(lengths, rates)


def test_cross_attention_is_refused(device: torch.device) -> None:
    q, k = torch.randn(1, 4, 2, 8, device=device), torch.randn(1, 5, 2, 8, device=device)
    with pytest.raises(ValueError, match="q has 4 positions and k 5"):
        dilated_attention(q, k, k, segment_lengths=(4,), dilation_rates=(1,))


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="each should be a multiple of the next"):
        MultiheadDilatedAttention(30, 4, (4,), (1,))
