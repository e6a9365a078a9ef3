"""Windows, softcap, split keys and head dims of values that differ."""

from __future__ import annotations

import pytest
from smoke_kit import Subject, make_inputs, reference, require_close


@pytest.mark.needs("LOCAL")
@pytest.mark.parametrize("window", [(16, 16), (64, 0), (0, 100), (30, -1)], ids=str)
def test_window(subject: Subject, dtype: str, window: tuple[int, int]) -> None:
    inputs = make_inputs(seqlen_q=180, seqlen_k=300, head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, window=window), reference(*inputs.exact, window=window), dtype)


@pytest.mark.needs("SOFTCAP")
def test_softcap(subject: Subject, dtype: str) -> None:
    inputs = make_inputs(head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, softcap=15.0), reference(*inputs.exact, softcap=15.0), dtype)


@pytest.mark.needs("SPLIT")
@pytest.mark.parametrize("num_splits", [2, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_splits(subject: Subject, dtype: str, num_splits: int, causal: bool) -> None:
    inputs = make_inputs(seqlen_q=5, seqlen_k=1500, heads=8, heads_k=2, head_dim=subject.head_dim, dtype=dtype)
    found = subject.attend(inputs, causal=causal, num_splits=num_splits)
    require_close(found, reference(*inputs.exact, causal=causal), dtype)


@pytest.mark.needs("HDIM64", "HDIMDIFF64")
@pytest.mark.parametrize("head_dim_v", [128, 512])
def test_wide_values(subject: Subject, head_dim_v: int) -> None:
    inputs = make_inputs(head_dim=64, head_dim_v=head_dim_v)
    require_close(subject.attend(inputs), reference(*inputs.exact), "bfloat16")


@pytest.mark.needs("HDIM192", "HDIMDIFF192")
def test_narrow_values(subject: Subject, dtype: str) -> None:
    inputs = make_inputs(head_dim=192, head_dim_v=128, dtype=dtype)
    require_close(subject.attend(inputs), reference(*inputs.exact), dtype)
