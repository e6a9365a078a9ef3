"""Forward attention against float64, over the profile's head dims and dtypes."""

from __future__ import annotations

import pytest
import torch
from smoke_kit import Subject, make_inputs, reference, require_close, require_equal_results

SHAPES = [(128, 128), (113, 203), (257, 1023), (1, 339)]  # queries and keys; the odd ones fill no block


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(subject: Subject, head_dim: int, dtype: torch.dtype, shape: tuple[int, int], causal: bool) -> None:
    seqlen_q, seqlen_k = shape
    inputs = make_inputs(seqlen_q=seqlen_q, seqlen_k=seqlen_k, head_dim=head_dim, dtype=dtype)
    require_close(subject.attend(inputs, causal=causal), reference(inputs, causal=causal), dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads_k", [1, 2])
def test_shared_key_heads(subject: Subject, head_dim: int, dtype: torch.dtype, heads_k: int, causal: bool) -> None:
    """MQA (one key head) and GQA (four query heads to a key head)."""
    inputs = make_inputs(seqlen_q=130, seqlen_k=250, heads=4 * heads_k, heads_k=heads_k, head_dim=head_dim, dtype=dtype)
    require_close(subject.attend(inputs, causal=causal), reference(inputs, causal=causal), dtype)


def test_queries_that_see_no_key(subject: Subject, dtype: torch.dtype) -> None:
    """Causal with more queries than keys: the first queries see nothing and get zeros."""
    inputs = make_inputs(seqlen_q=203, seqlen_k=113, head_dim=subject.head_dim, dtype=dtype)
    out, lse = subject.attend(inputs, causal=True)
    require_close((out, lse), reference(inputs, causal=True), dtype)
    assert not out[:, :90].any()
    assert (lse[..., :90] == float("-inf")).all()


def test_softmax_scale(subject: Subject, dtype: torch.dtype) -> None:
    inputs = make_inputs(head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, softmax_scale=0.25), reference(inputs, scale=0.25), dtype)


def test_large_scores_stay_finite(subject: Subject) -> None:
    inputs = make_inputs(head_dim=subject.head_dim)
    inputs.q.mul_(64)
    out, lse = subject.attend(inputs)
    assert out.isfinite().all()
    require_close((out, lse), reference(inputs), torch.bfloat16, room=5)  # rounding grows with the scores


@pytest.mark.parametrize("causal", [False, True])
def test_two_runs_give_equal_bits(subject: Subject, head_dim: int, dtype: torch.dtype, causal: bool) -> None:
    inputs = make_inputs(batch=4, seqlen_q=1000, seqlen_k=1000, heads=8, heads_k=8, head_dim=head_dim, dtype=dtype)
    first = subject.attend(inputs, causal=causal)
    for _ in range(3):
        require_equal_results(subject.attend(inputs, causal=causal), first)
