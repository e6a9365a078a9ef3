"""Attention over a sequence that is spread over processes, each with its shard: keys and values go round in a ring.

Shards are of one length and lie in the order of the ranks. Communication is torch.distributed's: NCCL on GPUs, gloo on
CPUs. A step's exchange of keys and values holds one shard; nobody ever has the whole sequence. Backward goes round once
more and computes each step again, which ends with every gradient at home. Whether a rank sees a step's keys or not, it
passes them on, so that no rank waits for another that has gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from ._attention import autocast
from ._dilated import Dilation, Selection, Settings, attend, check_lengths, dilations, local_part, put_together
from ._merge import Part, by_rows, merge
from ._words import answer_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """The ranks of a segment: `size` of them from rank `first` of `group` on; this process has the `place` of these."""

    group: dist.ProcessGroup | None
    first: int
    size: int
    place: int

    @classmethod
    def of_segment(cls, group: dist.ProcessGroup | None, shards: int) -> Ring:
        """The ring of this process where segments span `shards` ranks; the last may have fewer."""
        rank, world = dist.get_rank(group), dist.get_world_size(group)
        first = rank // shards * shards
        return cls(group=group, first=first, size=min(shards, world - first), place=rank - first)

    def pass_on(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give tensors to the next rank and take those of the one before."""
        if self.size == 1:
            return tensors
        after, before = self._peer(self.place + 1), self._peer(self.place - 1)
        whole = [tensor.contiguous() for tensor in tensors]
        taken = [torch.empty_like(tensor) for tensor in whole]
        steps = [dist.P2POp(dist.isend, tensor, after, self.group) for tensor in whole]
        steps += [dist.P2POp(dist.irecv, tensor, before, self.group) for tensor in taken]
        for request in dist.batch_isend_irecv(steps):
            request.wait()
        return tuple(taken)

    def _peer(self, place: int) -> int:
        rank = self.first + place % self.size
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def ring_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    group: dist.ProcessGroup | None = None,
    backend: str | Sequence[str] | None = None,
) -> torch.Tensor:
    """Attend over the whole sequence of which each rank of `group` has a shard; q, k and v as for `attention`.

    Shards must be of one length on all ranks, and all ranks must call it, forward and backward. With dropout each rank
    draws from a generator of its own, which should be seeded differently on each.
    """
    q, k, v = autocast(q, k, v)  # here, for backward has no autocast and should attend as forward did
    check_lengths(q, k)
    settings = Settings(causal=causal, scale=scale, dropout=dropout, backend=backend, lse=True)
    ring = Ring.of_segment(group, dist.get_world_size(group))
    return _rotated(q, k, v, ring, settings)[0].to(answer_dtype(q.dtype))


def ring_dilated_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    group: dist.ProcessGroup | None = None,
    backend: str | Sequence[str] | None = None,
) -> torch.Tensor:
    """`dilated_attention` over the whole sequence of which each rank of `group` has a shard.

    A segment lies in one shard, or is a whole number of shards that its rate divides: ValueError else. Of segments over
    several shards only the selected positions travel. Of dropout the same is true as in
    `ring_attention`.
    """
    q, k, v = autocast(q, k, v)  # here, for backward has no autocast and should attend as forward did
    check_lengths(q, k)
    pairs = dilations(segment_lengths, dilation_rates)
    for pair in pairs:
        _check_fit(pair, q.shape[1])
    settings = Settings(causal=causal, scale=scale, dropout=dropout, backend=backend, lse=True)
    return put_together(
        [_part(q, k, v, pair=pair, settings=settings, group=group) for pair in pairs], answer_dtype(q.dtype)
    )


def _check_fit(pair: Dilation, shard: int) -> None:
    if shard < 1:
        raise ValueError("the shard has no positions")
    if pair.length <= shard and shard % pair.length:
        raise ValueError(f"segments of {pair.length} positions do not fill shards of {shard}: one would be cut apart")
    if pair.length > shard and (pair.length % shard or shard % pair.rate):
        raise ValueError(
            f"segments of {pair.length} positions, every {pair.rate}-th of which attends, over shards of {shard}: the "
            "length should be a multiple of the shard's, and that one of the rate"
        )


def _part(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    pair: Dilation,
    settings: Settings,
    group: dist.ProcessGroup | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend for one pair: in this shard alone, or around the ranks of its segment."""
    shard = q.shape[1]
    if pair.length <= shard:
        return local_part(q, k, v, pair, settings)
    ring = Ring.of_segment(group, pair.length // shard)
    if pair.rate == 1:
        return _rotated(q, k, v, ring, settings)
    chosen = Selection.of(q, k, pair.rate)
    q, k, v = chosen.take(q, k, v)
    return chosen.spread(*_rotated(q, k, v, ring, settings))


def _rotated(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ring: Ring, settings: Settings) -> Part:
    """Attend around a ring; the output is as wide as the log-sum-exp."""
    whole: Part = _Rotating.apply(q, k, v, ring, settings)  # type: ignore[no-untyped-call]
    return whole


class _Rotating(torch.autograd.Function):
    """Attention around a ring: (output, log-sum-exp), both wide.

    Backward. With L the log-sum-exp over all steps and o the output, a step of (o_s, L_s) has the share
    w = exp(L_s - L), and is handed the gradients w do, and w (do . (o_s - o) + dL).
    """

    @staticmethod
    def forward(  # noqa: PLR0917  # apply() takes no names
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ring: Ring, settings: Settings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go round with keys and values; the first step is this rank's own."""
        states = [_random_state(q.device)]
        out, lse = merge([_attend_step((q, k, v), settings)])
        keys, values = k, v
        for step in range(1, ring.size):
            keys, values = ring.pass_on(keys, values)
            states.append(_random_state(q.device))
            if _sees(ring, settings, step):
                part = _attend_step((q, keys, values), _of_step(settings, step))
                out, lse = merge([(out, lse), part])
        ctx.words = ring, settings, states
        ctx.save_for_backward(q, k, v, out, lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None, None]:
        """Go round with keys, values and their gradients, which are at home after as many steps as there are ranks."""
        ring, settings, states = ctx.words
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = (torch.zeros_like(tensor, dtype=out.dtype) for tensor in (q, k, v))
        for step in range(ring.size):
            if _sees(ring, settings, step):
                with _replayed(q.device, states[step]):
                    steps = _step_gradients((q, k, v), (out, lse), gradients, _of_step(settings, step))
                dq, dk, dv = dq + steps[0], dk + steps[1], dv + steps[2]
            k, v, dk, dv = ring.pass_on(k, v, dk, dv)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None


def _sees(ring: Ring, settings: Settings, step: int) -> bool:
    """Whether a rank attends to the keys of a step: they come from `step` ranks before, round the ring."""
    return not settings.causal or step <= ring.place


def _of_step(settings: Settings, step: int) -> Settings:
    """Only its own keys can be behind a query: others that are not wholly before it are not seen at all."""
    return replace(settings, causal=settings.causal and step == 0)


def _lse_of(part: tuple[torch.Tensor, torch.Tensor | None]) -> Part:
    out, lse = part
    if lse is None:  # never with Settings.lse; said for type checkers
        raise TypeError("attention returned no log-sum-exp")
    return out, lse


def _attend_step(inputs: tuple[torch.Tensor, ...], settings: Settings) -> Part:
    """Attend to the keys of one step, without a graph.

    With dropout the backend is the one that backward will have, for no two drop the same weights of one seed.
    """
    q, k, v = inputs
    if settings.dropout == 0.0:
        return _lse_of(attend(q, k, v, settings))
    with torch.enable_grad():
        q, k, v = (tensor.detach().requires_grad_() for tensor in inputs)
        out, lse = _lse_of(attend(q, k, v, settings))
    return out.detach(), lse.detach()


def _random_state(device: torch.device) -> torch.Tensor:
    """The state of the generator that dropout on a device draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _replayed(device: torch.device, state: torch.Tensor) -> Iterator[None]:
    """Draw what was drawn from a state on, and leave the generator as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield


def _step_gradients(
    inputs: tuple[torch.Tensor, ...], whole: Part, gradients: tuple[torch.Tensor, ...], settings: Settings
) -> tuple[torch.Tensor, ...]:
    """The gradients of q, k and v through one step, computed again."""
    (out, lse), (dout, dlse) = whole, gradients
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        part, part_lse = _lse_of(attend(leaves[0], leaves[1], leaves[2], settings))
    share = torch.exp(part_lse.detach() - lse).masked_fill(lse == float("-inf"), 0.0)
    of_lse = share * ((dout * (part.detach() - out)).sum(-1).transpose(1, 2) + dlse)
    of_part = (by_rows(share) * dout).to(part.dtype)
    return torch.autograd.grad((part, part_lse), leaves, (of_part, of_lse.to(part_lse.dtype)))
