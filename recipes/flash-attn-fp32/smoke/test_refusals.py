"""What is refused, and in which words; and that bad calls of the operators themselves are refused too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from smoke_kit import Subject, make_inputs


def words(**changed: Any) -> dict[str, Any]:
    inputs = make_inputs(seqlen_q=20, seqlen_k=30)
    q, k, v = (tensor.detach() for tensor in inputs.leaves)
    return {"q": q, "k": k, "v": v, **changed}


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cuda") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


CASES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "cpu": ({"q": zeros(2, 20, 4, 64, device="cpu")}, RuntimeError, "runs on NVIDIA GPUs, and q is on cpu"),
    "cpu-k": ({"k": zeros(2, 30, 2, 64, device="cpu")}, RuntimeError, "k is on cpu"),
    "bf16": ({"q": zeros(2, 20, 4, 64, dtype=torch.bfloat16)}, TypeError, "computes in torch.float32"),
    "float64": ({"v": zeros(2, 30, 2, 64, dtype=torch.float64)}, TypeError, r"v is torch.float64"),
    "dimensions": ({"q": zeros(20, 4, 64)}, ValueError, "q has 3 dimensions"),
    "batch": ({"q": zeros(3, 20, 4, 64)}, ValueError, "batch sizes 3, 2 and 2"),
    "rows": ({"v": zeros(2, 31, 2, 64)}, ValueError, "may differ in their last dimension alone"),
    "head_dim": ({"q": zeros(2, 20, 4, 32)}, ValueError, "q has head_dim 32 and k 64"),
    "heads": ({"q": zeros(2, 20, 3, 64)}, ValueError, "no multiple of the 2"),
    "wide": (
        {"q": zeros(2, 20, 4, 192), "k": zeros(2, 30, 2, 192)},
        ValueError,
        "head_dim 192: there are kernels from 1 to 128",
    ),
    "wide-v": ({"v": zeros(2, 30, 2, 256)}, ValueError, "head_dim 256"),
    "both": (
        {"bias": zeros(20, 30), "mask": zeros(20, 30, dtype=torch.bool)},
        ValueError,
        "bias and mask are both given",
    ),
    "bias-bool": ({"bias": zeros(20, 30, dtype=torch.bool)}, TypeError, "did you mean mask"),
    "mask-float": ({"mask": zeros(20, 30)}, TypeError, "did you mean bias"),
    "bias-shape": ({"bias": zeros(20, 31)}, ValueError, "does not broadcast"),
    "bias-grad": ({"bias": zeros(20, 30).requires_grad_()}, ValueError, "no gradient of the bias"),
    "bias-cpu": ({"bias": zeros(20, 30, device="cpu")}, RuntimeError, "bias on cpu"),
    "dropout": ({"dropout": 1.5}, ValueError, "dropout is 1.5"),
    "seed": ({"dropout": 0.5, "seed": zeros(2)}, TypeError, "seed is a tensor"),
    "half-packed": ({"max_seqlen_q": 20}, ValueError, "cu_seqlens_q, cu_seqlens_k, max_seqlen_k is not given"),
    "packed-mask": (
        {
            "q": zeros(20, 4, 64),
            "k": zeros(30, 2, 64),
            "v": zeros(30, 2, 64),
            "cu_seqlens_q": zeros(2, dtype=torch.int32),
            "cu_seqlens_k": zeros(2, dtype=torch.int32),
            "max_seqlen_q": 20,
            "max_seqlen_k": 30,
            "mask": zeros(20, 30, dtype=torch.bool),
        },
        ValueError,
        "not with packed sequences",
    ),
    "sums": (
        {
            "q": zeros(20, 4, 64),
            "k": zeros(30, 2, 64),
            "v": zeros(30, 2, 64),
            "cu_seqlens_q": zeros(2, dtype=torch.int64),
            "cu_seqlens_k": zeros(2, dtype=torch.int32),
            "max_seqlen_q": 20,
            "max_seqlen_k": 30,
        },
        TypeError,
        "cu_seqlens_q is torch.int64",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_words(subject: Subject, case: str) -> None:
    changed, kind, sentence = CASES[case]
    with pytest.raises(kind, match=sentence):
        subject.attend(**words(**changed))


BAD_CALLS: dict[str, tuple[int, Any, str]] = {
    "dtype": (0, zeros(2, 20, 4, 64, dtype=torch.float64), "q has the wrong dtype"),
    "head_dim": (0, zeros(2, 20, 4, 48), "head_dim is none of"),
    "heads": (0, zeros(2, 20, 3, 64), "no multiple"),
    "v": (2, zeros(2, 29, 2, 64), "v has size 29"),
    "bias": (7, zeros(1, 1, 20, 31), "neither 1 nor 30"),
    "sums": (3, zeros(2, dtype=torch.int32), "q has 4 dimensions, not 3"),
    "dropout": (11, 0.5, "dropout needs a seed"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_operator_keeps_memory_safe(subject: Subject, case: str) -> None:  # noqa: ARG001
    """Whoever calls the operator past Python's checks gets an error, not a crash."""
    place, value, sentence = BAD_CALLS[case]
    call: list[Any] = [*words().values(), None, None, 20, 30, None, None, 0.125, False, 0.0, None]
    call[place] = value
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.flash_attention.forward(*call)
