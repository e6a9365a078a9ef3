"""Dilated attention (LongNet, arXiv 2307.02486) on top of `attention`: cost linear in the length.

For each segment length and dilation rate the sequence is cut into segments, of each of which every rate-th position
attends to every rate-th position; which of them depends on the head, so that heads together see all. The answers for
all pairs of length and rate are then put together as one softmax over all keys they saw. A shorter last segment is
attended by itself, without masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from ._attention import attention, attention_part, autocast
from ._merge import merge
from ._words import answer_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Dilation:
    """One pair of LongNet: segments of `length` positions, of which every `rate`-th takes part."""

    length: int
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `attention` is told for every part."""

    causal: bool
    scale: float | None
    dropout: float
    backend: str | Sequence[str] | None
    lse: bool


class _Words(TypedDict):
    causal: bool
    scale: float | None
    dropout: float
    backend: str | Sequence[str] | None


def dilations(segment_lengths: Sequence[int], dilation_rates: Sequence[int]) -> tuple[Dilation, ...]:
    """Pair lengths and rates up; ValueError where they do not go together."""
    if len(segment_lengths) != len(dilation_rates) or not segment_lengths:
        raise ValueError(
            f"there are {len(segment_lengths)} segment lengths and {len(dilation_rates)} dilation rates: "
            "give as many of one as of the other, and some"
        )
    for name, numbers in (("segment length", segment_lengths), ("dilation rate", dilation_rates)):
        if min(numbers) < 1:
            raise ValueError(f"{name} {min(numbers)} should be 1 or more")
    return tuple(
        Dilation(length=length, rate=rate) for length, rate in zip(segment_lengths, dilation_rates, strict=True)
    )


def dilated_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str | Sequence[str] | None = None,
) -> torch.Tensor:
    """Attend within segments, dilated; q, k and v as for `attention`, all of one length, which can be any.

    A position that no pair selects for a head gives zeros there; a pair of rate 1 selects all. Key heads that several
    query heads share select for these, too. Autocast and the dtype of the output are as for `attention`.
    """
    q, k, v = autocast(q, k, v)
    check_lengths(q, k)
    pairs = dilations(segment_lengths, dilation_rates)
    settings = Settings(causal=causal, scale=scale, dropout=dropout, backend=backend, lse=len(pairs) > 1)
    parts = [local_part(q, k, v, pair, settings) for pair in pairs]
    return put_together(parts, answer_dtype(q.dtype))


def put_together(parts: Sequence[tuple[torch.Tensor, torch.Tensor | None]], dtype: torch.dtype) -> torch.Tensor:
    """The output over all pairs; of one pair alone there need be no log-sum-exp."""
    with_lse = [(out, lse) for out, lse in parts if lse is not None]
    return merge(with_lse)[0].to(dtype) if with_lse else parts[0][0]


def check_lengths(q: torch.Tensor, k: torch.Tensor) -> None:
    """Refuse cross-attention, for which dilation is not defined."""
    if q.dim() == k.dim() == 4 and q.shape[1] != k.shape[1]:
        raise ValueError(f"q has {q.shape[1]} positions and k {k.shape[1]}: dilated attention is over one sequence")


def local_part(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pair: Dilation, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend for one pair, whole segments in one call and a shorter last one in another."""
    seqlen = q.shape[1]
    whole = seqlen // pair.length * pair.length
    pieces = []
    if whole:
        folded = (_fold(tensor[:, :whole], pair.length) for tensor in (q, k, v))
        out, lse = _dilated(tuple(folded), pair.rate, settings)
        pieces.append((_unfold(out, q.shape[0]), None if lse is None else _unfold_lse(lse, q.shape[0])))
    if whole < seqlen or not seqlen:
        pieces.append(_dilated(tuple(tensor[:, whole:] for tensor in (q, k, v)), pair.rate, settings))
    if len(pieces) == 1:
        return pieces[0]
    sums = [lse for _, lse in pieces if lse is not None]
    return torch.cat([out for out, _ in pieces], dim=1), torch.cat(sums, dim=2) if sums else None


def _fold(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Make segments a part of the batch."""
    return tensor.reshape(-1, length, *tensor.shape[2:])


def _unfold(out: torch.Tensor, batch: int) -> torch.Tensor:
    return out.reshape(batch, -1, *out.shape[2:])


def _unfold_lse(lse: torch.Tensor, batch: int) -> torch.Tensor:
    segments, heads, length = lse.shape
    return lse.reshape(batch, segments // batch, heads, length).transpose(1, 2).reshape(batch, heads, -1)


def _dilated(
    tensors: tuple[torch.Tensor, ...], rate: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend over every rate-th position of whole sequences, given as q, k and v."""
    q, k, v = tensors
    if rate == 1:
        return attend(q, k, v, settings)
    if q.shape[1] % rate == 0:
        chosen = Selection.of(q, k, rate)
        return chosen.spread(*attend(*chosen.take(q, k, v), settings))
    return _ragged(q, k, v, rate, settings)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend, with the log-sum-exp where the settings want it."""
    words: _Words = {
        "causal": settings.causal,
        "scale": settings.scale,
        "dropout": settings.dropout,
        "backend": settings.backend,
    }
    if settings.lse:
        return attention_part(q, k, v, **words)
    answer = attention(q, k, v, **words)
    return (answer, None) if isinstance(answer, torch.Tensor) else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of each `rate` positions every head attends at: for key head h it is h modulo rate.

    `queries` and `keys` hold that number for each head.
    """

    rate: int
    queries: torch.Tensor
    keys: torch.Tensor

    @classmethod
    def of(cls, q: torch.Tensor, k: torch.Tensor, rate: int) -> Selection:
        """Select for the heads of q and k."""
        keys = torch.arange(k.shape[2], device=q.device) % rate
        return cls(rate=rate, queries=keys.repeat_interleave(q.shape[2] // k.shape[2]), keys=keys)

    def take(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The selected positions, (batch, seqlen / rate, heads, head_dim); seqlen is a multiple of rate."""
        return self._taken(q, self.queries), self._taken(k, self.keys), self._taken(v, self.keys)

    def _taken(self, tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Take a diagonal where heads come in whole groups of the rate: its backward copies, that of indices sorts."""
        batch, seqlen, heads, head_dim = tensor.shape
        rows = tensor.reshape(batch, seqlen // self.rate, self.rate, heads, head_dim)
        groups, left = divmod(self.keys.shape[0], self.rate)
        if left:
            return rows[:, :, places, torch.arange(heads, device=tensor.device)]
        parted = rows.unflatten(3, (groups, self.rate, -1))  # each group has every place, for heads that share a key
        chosen = parted.diagonal(dim1=2, dim2=4).movedim(-1, 3)
        return chosen.reshape(batch, seqlen // self.rate, heads, head_dim)

    def spread(self, out: torch.Tensor, lse: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Put answers back to their positions; at others the output is zero and the log-sum-exp -inf."""
        batch, rows, heads, head_dim = out.shape
        here = self.queries[:, None] == torch.arange(self.rate, device=out.device)  # (heads, rate)
        spread = torch.where(here.T[:, :, None], out.unsqueeze(2), 0.0)
        spread = spread.reshape(batch, rows * self.rate, heads, head_dim)
        if lse is None:
            return spread, None
        sums = torch.where(here[:, None, :], lse.unsqueeze(-1), float("-inf"))
        return spread, sums.reshape(batch, heads, rows * self.rate)


def _ragged(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where heads select different numbers of positions, attend for those of each place by themselves."""
    batch, seqlen, heads = q.shape[:3]
    shared = heads // k.shape[2]
    out = q.new_zeros(batch, seqlen, heads, v.shape[-1], dtype=answer_dtype(q.dtype))
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    lse = q.new_full((batch, heads, seqlen), float("-inf"), dtype=wide) if settings.lse else None
    for place in range(min(rate, seqlen, k.shape[2])):
        keys = list(range(place, k.shape[2], rate))
        queries = [shared * head + copy for head in keys for copy in range(shared)]
        part, sums = attend(q[:, place::rate, queries], k[:, place::rate, keys], v[:, place::rate, keys], settings)
        out[:, place::rate, queries] = part
        if lse is not None and sums is not None:
            lse[:, queries, place::rate] = sums
    return out, lse


class DilatedAttention(torch.nn.Module):
    """Dilated attention without weights of its own; dropout in training alone."""

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        *,
        causal: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dilations(segment_lengths, dilation_rates)
        self.segment_lengths, self.dilation_rates = tuple(segment_lengths), tuple(dilation_rates)
        self.causal, self.scale, self.dropout = causal, scale, dropout

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend; tensors as `dilated_attention` takes them."""
        return dilated_attention(
            q,
            k,
            v,
            segment_lengths=self.segment_lengths,
            dilation_rates=self.dilation_rates,
            causal=self.causal,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )

    def extra_repr(self) -> str:
        """The words kept."""
        return (
            f"segment_lengths={self.segment_lengths}, dilation_rates={self.dilation_rates}, causal={self.causal}, "
            f"scale={self.scale}, dropout={self.dropout}"
        )


class MultiheadDilatedAttention(torch.nn.Module):
    """Self-attention of a transformer's layer, dilated: projections in and out around `DilatedAttention`."""

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        *,
        key_heads: int | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        key_heads = heads if key_heads is None else key_heads
        if embed_dim % heads or heads % key_heads:
            raise ValueError(
                f"embed_dim {embed_dim}, heads {heads} and key_heads {key_heads}: each should be a multiple of the next"
            )
        self.head_dim, self.widths = embed_dim // heads, (heads, key_heads, key_heads)
        self.project_in = torch.nn.Linear(embed_dim, sum(self.widths) * self.head_dim, bias=bias)
        self.attention = DilatedAttention(segment_lengths, dilation_rates, causal=causal, dropout=dropout)
        self.project_out = torch.nn.Linear(embed_dim, embed_dim, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over x, (batch, seqlen, embed_dim); returns the same shape."""
        heads = self.project_in(x).unflatten(-1, (-1, self.head_dim))
        q, k, v = heads.split(self.widths, dim=2)
        out: torch.Tensor = self.project_out(self.attention(q, k, v).flatten(-2))
        return out
