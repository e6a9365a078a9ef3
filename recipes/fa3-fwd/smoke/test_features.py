"""The features a profile may have beyond plain attention, each against float64."""

from __future__ import annotations

import pytest
import torch
from smoke_kit import (
    FP8,
    Subject,
    bits,
    make_inputs,
    ragged_reference,
    reference,
    require_close,
    require_equal_bits,
    require_equal_results,
)


@pytest.mark.needs("SOFTCAP")
@pytest.mark.parametrize("causal", [False, True])
def test_softcap(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    """The kernels take the GPU's approximate tanh, good to 11 bits: more than bfloat16 needs, less than float16."""
    inputs = make_inputs(seqlen_q=130, seqlen_k=250, head_dim=subject.head_dim, dtype=dtype)
    found = subject.attend(inputs, causal=causal, softcap=15.0)
    require_close(found, reference(inputs, causal=causal, softcap=15.0), dtype, room=4 if dtype == torch.float16 else 2)


@pytest.mark.needs("LOCAL")
@pytest.mark.parametrize("window", [(64, 0), (17, 5), (0, 0), (-1, 33), (100, -1)])
def test_window(subject: Subject, dtype: torch.dtype, window: tuple[int, int]) -> None:
    inputs = make_inputs(seqlen_q=257, seqlen_k=400, head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, window_size=window), reference(inputs, window=window), dtype)


@pytest.mark.needs("LOCAL")
def test_window_with_causal(subject: Subject, head_dim: int) -> None:
    inputs = make_inputs(seqlen_q=257, seqlen_k=400, head_dim=head_dim)
    found = subject.attend(inputs, causal=True, window_size=(64, 0))
    require_close(found, reference(inputs, causal=True, window=(64, 0)), torch.bfloat16)


@pytest.mark.needs("LOCAL")
def test_attention_chunk(subject: Subject) -> None:
    inputs = make_inputs(seqlen_q=257, seqlen_k=257, head_dim=subject.head_dim)
    found = subject.attend(inputs, causal=True, attention_chunk=100)
    require_close(found, reference(inputs, causal=True, chunk=100), torch.bfloat16)


def test_window_wider_than_the_sequence(subject: Subject) -> None:
    """It limits nothing, and so needs no local kernels."""
    inputs = make_inputs(seqlen_q=130, seqlen_k=250, head_dim=subject.head_dim)
    wide = subject.attend(inputs, window_size=(249, 129))
    require_equal_results(wide, subject.attend(inputs))


@pytest.mark.needs("SPLIT")
@pytest.mark.parametrize("num_splits", [0, 2, 5])
def test_split(subject: Subject, dtype: torch.dtype, num_splits: int) -> None:
    inputs = make_inputs(seqlen_q=3, seqlen_k=2000, heads=8, heads_k=2, head_dim=subject.head_dim, dtype=dtype)
    require_close(subject.attend(inputs, num_splits=num_splits), reference(inputs), dtype)


@pytest.mark.needs("SPLIT")
def test_combine(subject: Subject) -> None:
    """Partial results, combined by hand, are the whole result."""
    inputs = make_inputs(seqlen_q=3, seqlen_k=2000, head_dim=subject.head_dim)
    out, lse, out_parts, lse_parts = subject.interface.flash_attn_with_kvcache(
        inputs.q, inputs.k, inputs.v, num_splits=3, return_softmax_lse=True
    )
    assert out_parts.shape == (3, 2, 4, 3, subject.head_dim)
    combined, combined_lse = subject.interface.flash_attn_combine(
        out_parts.transpose(2, 3), lse_parts.transpose(2, 3), out_dtype=torch.bfloat16
    )
    require_close((combined, combined_lse.transpose(1, 2)), reference(inputs), torch.bfloat16)
    require_close((out, lse), reference(inputs), torch.bfloat16)


@pytest.mark.needs("PACKGQA")
@pytest.mark.parametrize("pack_gqa", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_pack_gqa(subject: Subject, dtype: torch.dtype, pack_gqa: bool, causal: bool) -> None:
    inputs = make_inputs(seqlen_q=70, seqlen_k=300, heads=12, heads_k=2, head_dim=subject.head_dim, dtype=dtype)
    found = subject.attend(inputs, causal=causal, pack_gqa=pack_gqa)
    require_close(found, reference(inputs, causal=causal), dtype)


@pytest.mark.needs("PAGEDKV", "VARLEN")
@pytest.mark.parametrize("page_size", [1, 16, 256])
@pytest.mark.parametrize("seqlen_q", [1, 140])
def test_paged_cache(subject: Subject, dtype: torch.dtype, page_size: int, seqlen_q: int) -> None:
    """A cache cut into pages that lie in any order."""
    lengths = [512, 141, 300]
    inputs = make_inputs(
        batch=3, seqlen_q=seqlen_q, seqlen_k=512, heads=8, heads_k=2, head_dim=subject.head_dim, dtype=dtype
    )
    pages = 3 * 512 // page_size
    random = torch.Generator(device="cuda").manual_seed(2)
    place = torch.randperm(pages, generator=random, device="cuda")
    cache = [
        bits(tensor).view(pages, page_size, 2, subject.head_dim)[place.argsort()].view(dtype)
        for tensor in (inputs.k, inputs.v)
    ]
    out, lse, *_ = subject.interface.flash_attn_with_kvcache(
        inputs.q,
        *cache,
        cache_seqlens=torch.tensor(lengths, dtype=torch.int32, device="cuda"),
        page_table=place.to(torch.int32).view(3, -1),
        causal=True,
        **inputs.descales,
        return_softmax_lse=True,
    )
    require_close((out, lse), ragged_reference(inputs, lengths, causal=True), dtype)


@pytest.mark.needs("APPENDKV", "VARLEN")
def test_append_to_cache(subject: Subject) -> None:
    """New keys land behind the used part of the cache, are seen at once, and nothing else changes."""
    new, used = 5, [195, 33]
    inputs = make_inputs(seqlen_q=new, seqlen_k=200, head_dim=subject.head_dim)
    added = make_inputs(seqlen_q=new, seqlen_k=new, head_dim=subject.head_dim, seed=1)
    k, v = inputs.k.clone(), inputs.v.clone()
    out, lse, *_ = subject.interface.flash_attn_with_kvcache(
        inputs.q,
        k,
        v,
        added.k,
        added.v,
        cache_seqlens=torch.tensor(used, dtype=torch.int32, device="cuda"),
        causal=True,
        return_softmax_lse=True,
    )
    for index, start in enumerate(used):
        inputs.k[index, start : start + new] = added.k[index]
        inputs.v[index, start : start + new] = added.v[index]
    require_equal_bits(k, inputs.k)
    require_equal_bits(v, inputs.v)
    expected = ragged_reference(inputs, [start + new for start in used], causal=True)
    require_close((out, lse), expected, torch.bfloat16)


@pytest.mark.needs("HDIM64", "HDIMDIFF64")
@pytest.mark.parametrize("head_dim_v", [128, 256, 512])
@pytest.mark.parametrize("causal", [False, True])
def test_wide_values(subject: Subject, head_dim_v: int, causal: bool) -> None:
    inputs = make_inputs(seqlen_q=130, seqlen_k=250, head_dim=64, head_dim_v=head_dim_v)
    require_close(subject.attend(inputs, causal=causal), reference(inputs, causal=causal), torch.bfloat16)


@pytest.mark.needs("HDIM64", "HDIMDIFF64")
def test_qv(subject: Subject) -> None:
    """A second query that meets the values, as latent attention needs it."""
    inputs = make_inputs(seqlen_q=65, seqlen_k=250, heads=8, heads_k=1, head_dim=64, head_dim_v=512)
    second = make_inputs(seqlen_q=65, seqlen_k=1, heads=8, heads_k=1, head_dim=512, seed=1).q
    found = subject.attend(inputs, qv=second)
    require_close(found, reference(inputs, qv=second), torch.bfloat16)


@pytest.mark.needs("HDIM192", "HDIMDIFF192")
@pytest.mark.parametrize("causal", [False, True])
def test_narrow_values(subject: Subject, dtype: torch.dtype, causal: bool) -> None:
    inputs = make_inputs(seqlen_q=130, seqlen_k=250, head_dim=192, head_dim_v=128, dtype=dtype)
    require_close(subject.attend(inputs, causal=causal), reference(inputs, causal=causal), dtype)


@pytest.mark.needs("FP8", "HDIM64")
def test_wide_values_in_float8_are_refused(subject: Subject) -> None:
    """The kernels would leave the columns above 64 unwritten."""
    inputs = make_inputs(head_dim=64, head_dim_v=128, dtype=FP8)
    with pytest.raises(subject.guard.UnsupportedFeatureError, match="no profile of fa3-fwd holds float8 kernels"):
        subject.attend(inputs)
