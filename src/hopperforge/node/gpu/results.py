"""What bench and memory found, as lines for people, as JSON and as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from hopperforge.node.gpu.bench import MATMUL, Bench, Row
from hopperforge.node.gpu.clocks import Reading, reasons_text
from hopperforge.node.gpu.memory import Memory, Peak, growth
from hopperforge.node.gpu.words import CHOOSER, Shape

FORMAT = 1
LINEAR_BELOW = 1.5  # a power of the length nearer to 1 than to 2
NEAR = 0.97  # of the fastest: what a good choice comes to
_MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """What everything was measured on, and when; all texts."""

    gpu: str
    driver: str
    cuda: str
    torch: str
    python: str
    created: str

    def __str__(self) -> str:
        """As a title has it."""
        return f"{self.gpu}, driver {self.driver}, torch {self.torch}"


# --- lines


def panel_lines(rows: Sequence[Row]) -> list[str]:
    """Write the rows of one shape; the first length of a panel brings the panel's title."""
    shape = rows[0].shape
    head = f"{shape.panel}: batch {shape.batch}, length {shape.seqlen}, {shape.heads} heads"
    names = f"{'median ms':>27}{'quartiles':>19}{'TFLOP/s':>9}{'of matmul':>10}{'error':>9}{'SM MHz':>12}  throttled by"
    return ["", head, names, *map(row_line, rows)]


def row_line(row: Row) -> str:
    """Write one row."""
    if row.times is None or row.tflops is None or row.of_matmul is None or row.clocks is None:
        return f"  {row.backend:<15}{row.reason}"
    quartiles = f"{row.times.low:.4f}-{row.times.high:.4f}"
    clock = "unknown" if row.clocks.lowest is None else f"{row.clocks.lowest}-{row.clocks.highest}"
    return (
        f"  {row.backend:<15}{row.times.median:>10.4f}{quartiles:>19}{row.tflops:>9.1f}{row.of_matmul:>10.1%}"
        f"{row.error or 0:>9.1e}{clock:>12}  {reasons_text(row.clocks.reasons)}"
    )


def bench_lines(bench: Bench) -> list[str]:
    """Sum up: the peak, the clocks, who was fastest, and what was not here."""
    first, last = bench.matmul
    peaks = f"{first:.1f} TFLOP/s before, {last:.1f} after"
    return [
        "",
        f"bf16 matmul of {MATMUL}: {peaks}; the better is what 'of matmul' counts in",
        f"before {_look(bench.before)}; after {_look(bench.after)}",
        f"highest SM clock {bench.highest_mhz or 'unknown'} MHz",
        "quartiles are those of single calls, each with an emptied L2 cache; the error is that of a short sequence",
        *(f"here: {one.name} {one.version}" for one in bench.backends),
        *(f"fastest {shape.panel}, length {shape.seqlen}: {name}" for shape, name in fastest(bench.rows)),
        *choice_lines(bench.rows),
        *(f"not here: {one.name}: {one.reason}" for one in bench.absent),
        *(f"WRONG: {row.backend}, {row.shape.panel}: {row.reason}" for row in bench.rows if row.wrong),
    ]


def _look(reading: Reading) -> str:
    if reading.mhz is None:
        return "the driver tells no clock"
    watts = "" if reading.watts is None else f", {reading.watts:.0f} W"
    return f"{reading.mhz} MHz, {reading.celsius} C{watts}; throttled by {reasons_text(reading.reasons)}"


def fastest(rows: Iterable[Row]) -> list[tuple[Shape, str]]:
    """Name the fastest of each shape that anything ran at; what only chooses among the others is none of them."""
    found = []
    for shape, several in groupby(rows, key=lambda row: row.shape):
        timed = [row for row in several if row.tflops is not None and row.backend != CHOOSER]
        if timed:
            found.append((shape, max(timed, key=lambda row: row.tflops or 0).backend))
    return found


def choice_lines(rows: Sequence[Row]) -> list[str]:
    """Say how near to the fastest of each shape the choice came, at worst and in how many shapes."""
    speeds = {(row.shape, row.backend): row.tflops for row in rows if row.tflops is not None}
    both = [(shape, best) for shape, best in fastest(rows) if (shape, CHOOSER) in speeds]
    if not both:
        return []
    shares = {shape: speeds[shape, CHOOSER] / speeds[shape, best] for shape, best in both}
    worst = min(shares, key=lambda shape: shares[shape])
    near = sum(share >= NEAR for share in shares.values())
    held = f"{CHOOSER}: within {1 - NEAR:.0%} of the fastest in {near} of {len(shares)} shapes"
    return [f"{held}; at worst {shares[worst]:.1%}, {worst.panel}, length {worst.seqlen}"]


def memory_lines(memory: Memory) -> list[str]:
    """Write the tables: a row for each implementation, MiB by length, and the power that the last two lengths show."""
    lines = []
    for direction, several in groupby(memory.peaks, key=lambda peak: peak.shape.direction):
        peaks = tuple(several)
        seqlens = sorted({peak.shape.seqlen for peak in peaks})
        shape = peaks[0].shape
        what = "forward" if direction == "forward" else "forward and backward"
        mask = "causal" if shape.causal else "no mask"
        lines += [
            "",
            f"{what}, {shape.dtype}, {shape.batch} x {shape.heads} heads of {shape.head_dim}, {mask}",
            f"  {'peak MiB':<15}" + "".join(f"{seqlen:>11}" for seqlen in seqlens) + "  beyond q, k and v it grows as",
        ]
        names = dict.fromkeys(peak.backend for peak in peaks)
        lines += [_memory_line(name, [peak for peak in peaks if peak.backend == name]) for name in names]
    return [*lines, *(["", *(f"not here: {one.name}: {one.reason}" for one in memory.absent)] if memory.absent else [])]


def _memory_line(name: str, peaks: Sequence[Peak]) -> str:
    known = {peak.shape.seqlen: peak.bytes for peak in peaks if peak.bytes is not None}
    if not known:
        return f"  {name:<15}{peaks[0].reason}"
    cells = "".join(f"{'-' if peak.bytes is None else f'{peak.bytes / _MIB:.1f}':>11}" for peak in peaks)
    reasons = sorted({f"{peak.reason} from {peak.shape.seqlen} on" for peak in peaks if peak.reason})[:1]
    return f"  {name:<15}{cells}  {power_text(growth(known))}" + "".join(f"; {reason}" for reason in reasons)


def power_text(power: float | None) -> str:
    """Say how memory grows with the length."""
    if power is None:
        return "not known from one length"
    return f"N^{power:.2f}, {'linear' if power < LINEAR_BELOW else 'quadratic'}"


# --- files


def bench_json(machine: Machine, bench: Bench) -> dict[str, Any]:
    """Give everything as JSON has it."""
    return {
        "bench": FORMAT,
        "machine": asdict(machine),
        "matmul": {"dtype": "bf16", "size": MATMUL, "before": bench.matmul[0], "after": bench.matmul[1]},
        "clocks": {
            "highest_mhz": bench.highest_mhz,
            "before": asdict(bench.before),
            "after": asdict(bench.after),
        },
        "backends": [{"name": one.name, "version": one.version} for one in bench.backends],
        "absent": [asdict(one) for one in bench.absent],
        "rows": [row_values(row) for row in bench.rows],
    }


def row_values(row: Row) -> dict[str, Any]:
    """Give one row flat, as CSV has it; times in ms."""
    times, clocks = row.times, row.clocks
    return {
        **asdict(row.shape),
        "backend": row.backend,
        "ms": times and times.median,
        "ms_low": times and times.low,
        "ms_high": times and times.high,
        "samples": times and times.count,
        "tflops": row.tflops,
        "of_matmul": row.of_matmul,
        "error": row.error,
        "sm_mhz_low": clocks and clocks.lowest,
        "sm_mhz_high": clocks and clocks.highest,
        "throttled_by": None if clocks is None else ", ".join(clocks.reasons),
        "reason": row.reason,
    }


def bench_csv(bench: Bench) -> str:
    """Give the rows as CSV, with a head."""
    text = io.StringIO()
    rows = [row_values(row) for row in bench.rows]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def memory_json(machine: Machine, memory: Memory) -> dict[str, Any]:
    """Give everything as JSON has it; `growth` is the power of the length, by direction and implementation."""
    powers: dict[str, dict[str, float | None]] = {}
    for peak in memory.peaks:
        same = (peak.shape.direction, peak.backend)
        known = {
            one.shape.seqlen: one.bytes
            for one in memory.peaks
            if (one.shape.direction, one.backend) == same and one.bytes is not None
        }
        powers.setdefault(same[0], {})[same[1]] = growth(known)
    return {
        "memory": FORMAT,
        "machine": asdict(machine),
        "backends": [{"name": one.name, "version": one.version} for one in memory.backends],
        "absent": [asdict(one) for one in memory.absent],
        "peaks": [
            {**asdict(peak.shape), "backend": peak.backend, "bytes": peak.bytes, "reason": peak.reason}
            for peak in memory.peaks
        ],
        "growth": powers,
    }
