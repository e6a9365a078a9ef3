"""Output and LSE against float64, and the same bits in every run."""

from __future__ import annotations

import pytest
from smoke_kit import FP8, Subject, make_inputs, reference, require_close, require_equal_bits

UNEVEN = [(200, 200), (1, 300), (130, 513), (257, 128)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", UNEVEN, ids=lambda lengths: f"{lengths[0]}-{lengths[1]}")
def test_lengths(subject: Subject, dtype: str, lengths: tuple[int, int], causal: bool) -> None:
    """Among them more queries than keys: with `causal` the first see none."""
    inputs = make_inputs(seqlen_q=lengths[0], seqlen_k=lengths[1], head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, causal=causal), reference(*inputs.exact, causal=causal), dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads_k", [1, 2, 4])
def test_heads(subject: Subject, dtype: str, head_dim: int, heads_k: int, causal: bool) -> None:
    """One key head for all, for two, and for each, in every head dim; float8 rounds head dims to 16."""
    rounded = head_dim // 16 * 16 if dtype == FP8 else head_dim
    inputs = make_inputs(heads=4, heads_k=heads_k, head_dim=rounded, dtype=dtype)
    require_close(subject.attend(inputs, causal=causal), reference(*inputs.exact, causal=causal), dtype)


def test_scale(subject: Subject, dtype: str) -> None:
    inputs = make_inputs(head_dim=subject.head_dim, dtype=dtype)
    found = subject.attend(inputs, softmax_scale=0.05)
    require_close(found, reference(*inputs.exact, scale=0.05), dtype)


def test_twice(subject: Subject, dtype: str) -> None:
    inputs = make_inputs(seqlen_q=513, seqlen_k=513, head_dim=subject.head_dim, dtype=dtype)
    for found, expected in zip(subject.attend(inputs, causal=True), subject.attend(inputs, causal=True), strict=True):
        require_equal_bits(found, expected)
