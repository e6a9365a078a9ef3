"""Nothing to attend to, or nobody to attend: upstream launches no kernel, and says what the result is.

No queries: empty results of the right shape. Queries but no keys at all: zeros, and softmax_lse +inf (a sequence
without keys among others that have some gets -inf, see test_varlen).
"""

from __future__ import annotations

import pytest
import torch
from smoke_kit import FP8, Subject, make_inputs


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(0, 128, 128), (2, 0, 128), (2, 0, 0)], ids=str)
def test_no_queries(subject: Subject, dtype: torch.dtype, causal: bool, shape: tuple[int, int, int]) -> None:
    batch, seqlen_q, seqlen_k = shape
    inputs = make_inputs(batch=batch, seqlen_q=seqlen_q, seqlen_k=seqlen_k, head_dim=subject.head_dim, dtype=dtype)
    out, lse = subject.attend(inputs, causal=causal)
    assert out.shape == (batch, seqlen_q, 4, subject.head_dim)
    assert out.dtype == (torch.bfloat16 if dtype == FP8 else dtype)
    assert lse.shape == (batch, 4, seqlen_q)


@pytest.mark.parametrize("causal", [False, True])
def test_no_keys(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    inputs = make_inputs(seqlen_q=100, seqlen_k=0, head_dim=subject.head_dim, dtype=dtype)
    out, lse = subject.attend(inputs, causal=causal)
    assert out.shape == (2, 100, 4, subject.head_dim)
    assert not out.any()
    assert (lse == float("inf")).all()


@pytest.mark.needs("VARLEN")
@pytest.mark.parametrize("ends", [[0], [0, 0, 0]])
def test_no_packed_tokens(subject: Subject, ends: list[int]) -> None:
    """No sequence, or two without a token."""
    inputs = make_inputs(batch=1, seqlen_q=0, seqlen_k=0, head_dim=subject.head_dim)
    offsets = torch.tensor(ends, dtype=torch.int32, device="cuda")
    out, lse = subject.interface.flash_attn_varlen_func(
        inputs.q[0], inputs.k[0], inputs.v[0], offsets, offsets, 0, 0, return_attn_probs=True
    )
    assert out.shape == (0, 4, subject.head_dim)
    assert lse.shape == (4, 0)


def test_calls_after_empty_ones(subject: Subject) -> None:
    """An empty call leaves nothing behind that spoils the next."""
    inputs = make_inputs(head_dim=subject.head_dim)
    before, _ = subject.attend(inputs)
    subject.attend(make_inputs(batch=0, head_dim=subject.head_dim))
    after, _ = subject.attend(inputs)
    torch.cuda.synchronize()
    assert torch.equal(before, after)
