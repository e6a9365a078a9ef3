"""Sequences of different lengths: packed without padding, or in a cache of which only a part is used."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from smoke_kit import (
    Inputs,
    Subject,
    bits,
    make_inputs,
    ragged_reference,
    reference,
    require_close,
    require_equal_results,
)

pytestmark = pytest.mark.needs("VARLEN")

LENGTHS_Q = [1, 57, 0, 200, 128, 31]
LENGTHS_K = [33, 57, 17, 413, 128, 0]


def offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device="cuda")


def pack(sequences: list[Inputs]) -> Inputs:
    """The sequences one after another: q (total_q, heads, head_dim); descales (batch, heads_k)."""
    return Inputs(
        joined([sequence.q[0] for sequence in sequences]),
        joined([sequence.k[0] for sequence in sequences]),
        joined([sequence.v[0] for sequence in sequences]),
        {name: torch.cat([sequence.descales[name] for sequence in sequences]) for name in sequences[0].descales},
    )


def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([bits(tensor) for tensor in tensors]).view(tensors[0].dtype)


def attend(subject: Subject, packed: Inputs, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = subject.interface.flash_attn_varlen_func(
        packed.q,
        packed.k,
        packed.v,
        offsets(LENGTHS_Q),
        offsets(LENGTHS_K),
        max(LENGTHS_Q),
        max(LENGTHS_K),
        **packed.descales,
        **named,
        return_attn_probs=True,
    )
    return out, lse


def sequences(subject: Subject, dtype: torch.dtype) -> list[Inputs]:
    return [
        make_inputs(
            batch=1, seqlen_q=q, seqlen_k=k, heads=4, heads_k=2, head_dim=subject.head_dim, dtype=dtype, seed=index
        )
        for index, (q, k) in enumerate(zip(LENGTHS_Q, LENGTHS_K))
    ]


@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    """Among them one without queries and one without keys, which gets zeros and -inf."""
    parts = sequences(subject, dtype)
    expected = [reference(part, causal=causal) for part in parts]
    found = attend(subject, pack(parts), causal=causal)
    out = torch.cat([out[0] for out, _ in expected])
    lse = torch.cat([lse[0] for _, lse in expected], dim=-1)
    require_close(found, (out, lse), dtype)


def test_packed_sequences_twice(subject: Subject, dtype: torch.dtype) -> None:
    packed = pack(sequences(subject, dtype))
    first = attend(subject, packed, causal=True)
    require_equal_results(attend(subject, packed, causal=True), first)


@pytest.mark.parametrize("seqlen_q", [1, 5, 130])
def test_cache_lengths(subject: Subject, dtype: torch.dtype, seqlen_q: int) -> None:
    """Each sequence sees only the part of the cache that it uses."""
    lengths = [300, 131, 200]
    inputs = make_inputs(
        batch=3, seqlen_q=seqlen_q, seqlen_k=300, heads=8, heads_k=2, head_dim=subject.head_dim, dtype=dtype
    )
    expected = ragged_reference(inputs, lengths, causal=True)
    used = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    out, lse, *_ = subject.interface.flash_attn_with_kvcache(
        inputs.q, inputs.k, inputs.v, cache_seqlens=used, causal=True, **inputs.descales, return_softmax_lse=True
    )
    require_close((out, lse), expected, dtype)


def test_scheduler_metadata(subject: Subject) -> None:
    """A schedule made once serves two calls."""
    lengths = [300, 131, 200]
    used = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    inputs = make_inputs(batch=3, seqlen_q=4, seqlen_k=300, heads=8, heads_k=2, head_dim=subject.head_dim)
    metadata = subject.interface.get_scheduler_metadata(
        3, 4, 300, 8, 2, subject.head_dim, used, qkv_dtype=torch.bfloat16, causal=True
    )
    expected = ragged_reference(inputs, lengths, causal=True)
    for _ in range(2):
        out, lse, *_ = subject.interface.flash_attn_with_kvcache(
            inputs.q,
            inputs.k,
            inputs.v,
            cache_seqlens=used,
            causal=True,
            scheduler_metadata=metadata,
            return_softmax_lse=True,
        )
        require_close((out, lse), expected, torch.bfloat16)
