"""Whether hopper_attention takes the fastest backend: its pick against every usable one, on one GPU.

    PYTHONPATH=recipes/hopper-attention/python python benchmarks/attention_choice.py --json choice.json

For each shape every backend that `explain` calls usable is timed in turn, round after round, by CUDA events; the L2
cache is flushed before each call, and the GPU kept busy meanwhile, so that neither it nor the launching counts. Prints
shape, pick, fastest and their ratio, and exits with 1 if a pick is slower by more than 3 % beyond the spread measured.
"plain" backends (sdpa_math, eager) are timed where their scores take less than 2 GB. Needs torch alone; packages of
kernels are taken where they are found.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from hopper_attention import attention, available, explain

GOAL: Final = 1.03
TOKENS: Final = 16384
WIDTH: Final = 2048
PLAIN: Final = frozenset({"sdpa_math", "eager"})
SCORES_LIMIT: Final = 2e9  # bytes
FLUSHED: Final = 256 * 1024 * 1024  # several times the L2 cache of any GPU there is
BUSY_CYCLES: Final = 1_000_000  # about half a millisecond, longer than launching takes
WARM_UP: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A call: self-attention over 16384 tokens in all, of a width of 2048; `backward` times both passes together."""

    seqlen: int
    head_dim: int
    dtype: str
    causal: bool
    backward: bool

    def __str__(self) -> str:
        """As the table names it."""
        words = [f"{TOKENS // self.seqlen}x{self.seqlen}", f"d{self.head_dim}", self.dtype]
        return " ".join([*words, *(["causal"] if self.causal else []), "both" if self.backward else "forward"])

    @property
    def scores(self) -> int:
        """The bytes that plain backends need for one matrix of scores."""
        return TOKENS * self.seqlen * (WIDTH // self.head_dim) * 4


def grid() -> tuple[Shape, ...]:
    """56 of bfloat16 and float16, 16 of float32."""
    halves = itertools.product((512, 2048, 8192, 16384), (64, 128, 256), ("bfloat16",), (False, True), (False, True))
    others = itertools.product((4096,), (64, 128), ("float16",), (False, True), (False, True))
    wide = itertools.product((1024, 4096), (64, 128), ("float32",), (False, True), (False, True))
    return tuple(
        Shape(seqlen=seqlen, head_dim=head_dim, dtype=dtype, causal=causal, backward=backward)
        for seqlen, head_dim, dtype, causal, backward in (*halves, *others, *wide)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds of one backend: the median of its rounds, and half of what the middle half of them spans."""

    median: float
    spread: float

    @classmethod
    def of(cls, samples: list[float]) -> "Timing":
        """Take what the rounds measured."""
        low, median, high = statistics.quantiles(samples, n=4)
        return cls(median=median, spread=(high - low) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One shape; `ratio` is the pick's time over the fastest's, `within` the part of it that the spread may be."""

    shape: Shape
    pick: str
    fastest: str
    ratio: float
    within: float
    timings: dict[str, Timing]

    @property
    def good(self) -> bool:
        """Whether the pick is not slower than it may be."""
        return self.ratio - self.within <= GOAL


def measure(shape: Shape, rounds: int) -> Row:
    """Time every usable backend of one shape in turn; the order turns round every round."""
    tensors = [
        torch.randn(TOKENS // shape.seqlen, shape.seqlen, WIDTH // shape.head_dim, shape.head_dim, device="cuda").to(
            getattr(torch, shape.dtype)
        )
        for _ in range(4)
    ]
    q, k, v, pull = (tensor.requires_grad_(shape.backward and place < 3) for place, tensor in enumerate(tensors))
    decision = explain(q, k, v, causal=shape.causal)
    plain = PLAIN if shape.scores > SCORES_LIMIT else frozenset()
    names = [verdict.backend for verdict in decision.verdicts if verdict.usable and verdict.backend not in plain]

    def call(name: str) -> Callable[[], Any]:
        def run() -> Any:
            out = attention(q, k, v, causal=shape.causal, backend=name)
            return torch.autograd.grad(out, (q, k, v), pull) if shape.backward else out

        return run

    calls = {name: call(name) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    flushed = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    for name in names * WARM_UP:
        calls[name]()
    for turn in range(rounds):
        for name, elapsed in timed(calls, names[turn % len(names) :] + names[: turn % len(names)], flushed):
            samples[name].append(elapsed)
    timings = {name: Timing.of(found) for name, found in samples.items()}
    return judge(shape, str(decision.chosen), timings)


def timed(calls: dict[str, Callable[[], Any]], names: list[str], flushed: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Time one call of each: milliseconds on the GPU."""
    events = []
    for name in names:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        torch.cuda._sleep(BUSY_CYCLES)  # noqa: SLF001  # what torch's own tests keep a GPU busy with
        start.record()
        calls[name]()
        end.record()
        events.append((name, start, end))
    torch.cuda.synchronize()
    for name, start, end in events:
        yield name, start.elapsed_time(end)


def judge(shape: Shape, pick: str, timings: dict[str, Timing]) -> Row:
    """Compare the pick with the fastest."""
    fastest = min(timings, key=lambda name: timings[name].median)
    mine, best = timings[pick], timings[fastest]
    return Row(
        shape=shape,
        pick=pick,
        fastest=fastest,
        ratio=mine.median / best.median,
        within=0.0 if pick == fastest else mine.spread / mine.median + best.spread / best.median,
        timings=timings,
    )


def line(row: Row) -> str:
    """One line of the table."""
    others = sorted(row.timings.items(), key=lambda item: item[1].median)[:4]
    told = ", ".join(f"{name} {timing.median:.3f}" for name, timing in others)
    mark = " " if row.good else "!"
    return f"{mark} {row.shape!s:38} {row.pick:16} {row.fastest:16} {row.ratio:6.3f} +-{row.within:.3f}  {told}"


def main() -> int:
    """Measure the grid and print it; 1 if a pick is too slow."""
    parser = argparse.ArgumentParser(description="Time hopper_attention's pick against every usable backend.")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    parser.add_argument("--rounds", type=int, default=9, help="how often each backend is timed")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("error: torch finds no GPU here")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for found in available():
        print(f"  {found.name:16} {found.version or '':16} {found.reason or 'usable'}")
    print(f"  {'shape':38} {'pick':16} {'fastest':16} ratio  spread  milliseconds, the fastest four")
    rows = []
    for shape in grid():
        rows.append(measure(shape, asked.rounds))
        print(line(rows[-1]), flush=True)
    slow = [row for row in rows if not row.good]
    print(f"{len(rows)} shapes, {len(slow)} slower than {GOAL} of the fastest beyond the spread")
    if asked.json is not None:
        document = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "rows": [{**asdict(row), "good": row.good} for row in rows],
        }
        asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
