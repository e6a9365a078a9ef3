"""Every backend that takes a call against the definition in float64, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hopper_attention import attention, explain
from reference import reference, within

DTYPES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 4e-3,
}
"""How far the largest error may be from zero, in parts of the largest value expected."""

SHAPES = [(16, 16, 2, 2, 16, 16), (7, 19, 4, 2, 8, 8), (19, 7, 6, 1, 24, 24), (1, 9, 2, 1, 8, 8), (5, 5, 2, 2, 12, 20)]
"""Lengths of queries and keys, heads of both, head dims of q and k, and of v."""

WORDS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"window": (3, 2)},
    {"window": (0, 0)},
    {"window": (-1, 1)},
    {"causal": True, "window": (4, 5)},
    {"causal": True, "window": (-1, 3)},
    {"softcap": 2.0},
    {"scale": 0.7, "causal": True},
    {"mask": "some"},
    {"mask": "broadcast", "causal": True},
    {"bias": "dense"},
    {"bias": "dense", "causal": True, "window": (2, 0)},
    {"bias": "row", "mask": "some"},
    {"softcap": 3.0, "bias": "dense", "mask": "some", "causal": True},
]


def tensors(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    """q, k and v."""
    seqlen_q, seqlen_k, heads, heads_k, head_dim, head_dim_v = shape
    sizes = [(2, seqlen_q, heads, head_dim), (2, seqlen_k, heads_k, head_dim), (2, seqlen_k, heads_k, head_dim_v)]
    return [torch.randn(size, dtype=torch.float64).to(dtype).to(device) for size in sizes]


def added(words: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The words with the mask or the bias they name; each mask leaves one query without any key."""
    seqlen_q, seqlen_k, heads = shape[:3]
    made = dict(words)
    if words.get("mask") == "some":
        made["mask"] = torch.rand(2, heads, seqlen_q, seqlen_k) > 0.4
        made["mask"][0, 0, 0] = False
    elif words.get("mask") == "broadcast":
        made["mask"] = torch.rand(2, 1, 1, seqlen_k) > 0.4
        made["mask"][1] = False
    if words.get("bias") == "dense":
        made["bias"] = torch.randn(heads, seqlen_q, seqlen_k)
        made["bias"][0, 0] = float("-inf")
    elif words.get("bias") == "row":
        made["bias"] = torch.randn(seqlen_k)
    return made


def expected(inputs: list[torch.Tensor], words: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the definition gives for the words."""
    rest = {name: value for name, value in words.items() if name not in ("causal", "window")}
    for name in ("bias", "mask"):
        if name in rest:
            rest[name] = rest[name].cpu()
    q, k, v = inputs
    counts = within(q.shape[1], k.shape[1], causal=words.get("causal", False), window=words.get("window"))
    return reference(q, k, v, counts=counts, **rest)


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Compare values where they are finite, and infinities exactly."""
    found, wanted = found.detach().cpu().double(), wanted.detach()
    finite = wanted.isfinite()
    assert torch.equal(found.isfinite(), finite)
    assert torch.equal(found[~finite], wanted[~finite])
    largest = max([1.0, *wanted[finite].abs().tolist()])
    furthest = max([0.0, *(found[finite] - wanted[finite]).abs().tolist()])
    assert furthest <= tolerance * largest


def usable(inputs: list[torch.Tensor], words: dict[str, Any]) -> list[str]:
    """The backends that say they take a call, at least one."""
    names = [verdict.backend for verdict in explain(*inputs, **words).verdicts if verdict.usable]
    assert names
    return names


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_forward(words: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    inputs = tensors(shape, dtype, device)
    made = {name: value.to(device) if torch.is_tensor(value) else value for name, value in added(words, shape).items()}
    wanted, _ = expected([tensor.cpu().double() for tensor in inputs], made)
    for name in usable(inputs, made):
        out = attention(*inputs, **made, backend=name)
        assert out.dtype == dtype
        near(out, wanted, DTYPES[dtype])


@pytest.mark.parametrize("lse", [False, True], ids=["out", "lse"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_backward(
    words: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, lse: bool, device: torch.device
) -> None:
    """Gradients of q, k, v and a bias, through the output, or through it and the log-sum-exp."""
    inputs = [tensor.requires_grad_() for tensor in tensors(shape, dtype, device)]
    made = {name: value.to(device) if torch.is_tensor(value) else value for name, value in added(words, shape).items()}
    leaves = [*inputs]
    if "bias" in made:
        made["bias"] = made["bias"].to(dtype).requires_grad_()
        leaves.append(made["bias"])
    doubles = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    words_of_doubles = made | ({"bias": doubles[3]} if "bias" in made else {})
    wanted = expected(doubles[:3], words_of_doubles)
    pull = torch.randn_like(wanted[0])
    pull_lse = torch.randn_like(wanted[1])
    loss = (wanted[0] * pull).sum() + ((wanted[1].masked_fill(wanted[1].isinf(), 0.0) * pull_lse).sum() if lse else 0.0)
    gradients = torch.autograd.grad(loss, doubles, materialize_grads=True)
    for name in usable(inputs, {**made, "return_lse": lse}):
        answer = attention(*inputs, **made, return_lse=lse, backend=name)
        out, sums = answer if lse else (answer, None)
        near(out, wanted[0], 10 * DTYPES[dtype])
        loss = (out * pull.to(out)).sum()
        if sums is not None:
            near(sums, wanted[1], 10 * DTYPES[dtype])
            loss = loss + (sums.masked_fill(sums.isinf(), 0.0) * pull_lse.to(sums)).sum()
        for found, right in zip(torch.autograd.grad(loss, leaves, materialize_grads=True), gradients, strict=True):
            near(found, right, 10 * DTYPES[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", [(48, 48, 4, 4, 64, 64), (48, 48, 4, 2, 128, 128)], ids=str)
def test_log_sum_exp(shape: tuple[int, ...], causal: bool, dtype: torch.dtype, device: torch.device) -> None:
    """Of lengths and head dims that the kernels of GPUs take, without gradients: natural, and wide."""
    inputs, words = tensors(shape, dtype, device), {"causal": causal, "return_lse": True}
    wanted = expected([tensor.cpu().double() for tensor in inputs], {"causal": causal})
    for name in usable(inputs, words):
        out, lse = attention(*inputs, **words, backend=name)
        assert lse.dtype == torch.float32
        near(out, wanted[0], DTYPES[dtype])
        near(lse, wanted[1], DTYPES[dtype])


@pytest.mark.parametrize("shape", [(2, 0, 4, 8), (0, 3, 4, 8), (2, 3, 0, 8)], ids=str)
def test_tensors_without_elements(shape: tuple[int, ...], device: torch.device) -> None:
    """No queries, no batch: an empty answer; no keys: zeros."""
    keys = torch.randn(shape[0], 5, 4, 8, device=device)
    empty = torch.randn(shape if shape[2] else (2, 3, 4, 8), device=device)
    if not shape[2]:
        keys = keys[:, :0]
    out, lse = attention(empty, keys, keys, return_lse=True)
    assert out.shape == empty.shape
    assert torch.equal(out, torch.zeros_like(out))
    assert lse.shape == (empty.shape[0], 4, empty.shape[1])


@pytest.mark.parametrize("value", [0.25, 1.0])
def test_dropout_drops_weights_and_keeps_the_mean(value: float, device: torch.device) -> None:
    """With values of one, an output is the sum of the weights that are left, divided by the share left."""
    q, k = torch.randn(2, 4, 64, 4, 16, device=device)
    v = torch.ones_like(k)
    for name in usable([q, k, v], {"dropout": value}):
        out = attention(q, k, v, dropout=value, backend=name)
        if value == 1.0:
            assert torch.equal(out, torch.zeros_like(out))
            continue
        assert abs(out.mean().item() - 1.0) < 0.02
        assert out.std().item() > 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["forward", "backward"])
def test_a_bias_is_not_rounded_to_the_dtype_of_q(dtype: torch.dtype, grad: bool, device: torch.device) -> None:
    """2049 is 1 above 2048, which neither dtype tells apart; -70000, for float16 too much, is 0 where all are."""
    q, k, v = tensors((16, 16, 2, 2, 16, 16), dtype, device)
    bias = torch.where(torch.rand(2, 16, 16, device=device) > 0.5, 2049.0, 2048.0)
    bias[:, 0] = -70000.0
    wanted, _ = reference(q.cpu().double(), k.cpu().double(), v.cpu().double(), bias=(bias - 2048.0).cpu().double())
    shifted, _ = reference(q.cpu().double(), k.cpu().double(), v.cpu().double())
    wanted[:, 0] = shifted[:, 0]
    q = q.requires_grad_(grad)
    assert explain(q, k, v, bias=bias, backend="sdpa_math").chosen is None
    for name in usable([q, k, v], {"bias": bias}):
        near(attention(q, k, v, bias=bias, backend=name), wanted, DTYPES[dtype])


def test_plain_torch_sums_wide_under_autocast_too(device: torch.device) -> None:
    """Autocast casts what is given, and nothing within: scores of up to 100 rounded to bfloat16 would show."""
    inputs = [3.0 * tensor for tensor in tensors((32, 32, 2, 2, 16, 16), torch.float32, device)]
    wanted, wanted_lse = reference(*(tensor.bfloat16().cpu().double() for tensor in inputs))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out, lse = attention(*inputs, return_lse=True, backend="eager")
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    near(out, wanted, 4e-3)
    near(lse, wanted_lse, 1e-5)


def test_float8_is_computed_wide(device: torch.device) -> None:
    inputs = [tensor.to(torch.float8_e4m3fn) for tensor in tensors((16, 16, 2, 2, 16, 16), torch.float32, device)]
    wanted, _ = reference(*(tensor.cpu().double() for tensor in inputs))
    for name in usable(inputs, {}):
        out = attention(*inputs, backend=name)
        assert out.dtype == torch.bfloat16
        near(out, wanted, 2e-2 if name == "eager" else 0.15)
