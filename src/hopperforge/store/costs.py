"""What compiling a unit is expected to cost: learned on this machine, shipped as measured, or estimated from its name.

Costs decide order and placement only; they never change bytes, so a damaged or missing table is a warning at most.
"""

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from hopperforge.model.keys import canonical_json
from hopperforge.model.machine import Need
from hopperforge.model.pack import Calm, Cost, Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Reporter
from hopperforge.run.files import Lock, storage_guard, write_atomic

_FORMAT: Final = 1
_GIB: Final = 2**30


class CostEntry(BaseModel):
    """A measured cost; `switches` is the digest of the unit's defines, None for "whatever they were"."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    toolkit: str
    unit: str
    switches: str | None
    seconds: float
    peak_rss: int

    @property
    def cost(self) -> Cost:
        """The measured part."""
        return Cost(seconds=self.seconds, peak_rss=self.peak_rss)


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: int
    machine: str | None = None
    entries: list[CostEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """What is known about costs; `learned` was measured in this cache, `shipped` on the machine the table names."""

    learned: tuple[CostEntry, ...]
    shipped: tuple[CostEntry, ...]

    def expect(self, unit: Unit, toolkit: ToolkitVersion) -> Cost:
        """The expected cost of a unit.

        | known                                             | answer                               |
        |---------------------------------------------------|--------------------------------------|
        | learned for this unit, toolkit and these switches | that                                 |
        | learned for this unit otherwise                   | the largest seconds and bytes of all |
        | shipped for this unit                             | the largest seconds and bytes of all |
        | nothing of a unit merged of several sources       | `_together` of what each is expected |
        | nothing                                           | `estimate(unit)`                     |

        A merged unit has a path of its own, made from its sources, so its costs and theirs never mix.
        """
        learned = [entry for entry in self.learned if entry.unit == unit.path]
        for entry in learned:
            if (entry.toolkit, entry.switches) == (str(toolkit), switches_digest(unit)):
                return entry.cost
        for entries in (learned, [entry for entry in self.shipped if entry.unit == unit.path]):
            if entries:
                return _largest(entries)
        if unit.merged:
            apart = [self.expect(Unit(path=path, arguments=unit.arguments), toolkit) for path in unit.merged]
            return _together(unit, apart)
        return estimate(unit)

    def need(self, unit: Unit, toolkit: ToolkitVersion) -> Need:
        """What has to be set aside for a unit, by its expected cost."""
        cost = self.expect(unit, toolkit)
        calm = calm_of(unit, cost)
        return Need(peak=cost.peak_rss, later=cost.peak_rss if calm is None else calm.rss)


def _largest(entries: Sequence[CostEntry]) -> Cost:
    return Cost(
        seconds=max(entry.seconds for entry in entries),
        peak_rss=max(entry.peak_rss for entry in entries),
    )


def switches_digest(unit: Unit) -> str:
    """A short digest of the unit's `-D` arguments, whatever their order."""
    defines = sorted(argument for argument in unit.arguments if argument.startswith("-D"))
    return hashlib.sha256(canonical_json(defines)).hexdigest()[:16]


def load_costs(store: Path, reporter: Reporter) -> CostTable:
    """Read the shipped table and the one learned in the folder `store`; a damaged learned one counts as empty."""
    shipped = importlib.resources.files("hopperforge").joinpath("data/unit-costs.json").read_bytes()
    return CostTable(learned=_learned(store, reporter), shipped=tuple(_Table.model_validate_json(shipped).entries))


def _learned(store: Path, reporter: Reporter) -> tuple[CostEntry, ...]:
    path = _path(store)
    with storage_guard(path):
        text = path.read_bytes() if path.is_file() else None
    if text is None:
        return ()
    try:
        table = _Table.model_validate_json(text)
    except ValidationError:
        table = None
    if table is None or table.format != _FORMAT:
        reporter.warn(f"{path} is not a cost table; compile costs are learned anew")
        return ()
    return tuple(table.entries)


def learn(store: Path, *, unit: Unit, toolkit: ToolkitVersion, cost: Cost, reporter: Reporter) -> None:
    """Keep what a unit cost, in place of what was learned before for the same unit, toolkit and switches."""
    entry = CostEntry(
        toolkit=str(toolkit),
        unit=unit.path,
        switches=switches_digest(unit),
        seconds=round(cost.seconds, 3),
        peak_rss=cost.peak_rss,
    )
    with Lock(store / "costs.lock"):
        kept = [old for old in _learned(store, reporter) if _identity(old) != _identity(entry)]
        entries = sorted([*kept, entry], key=_identity)
        table = _Table(format=_FORMAT, entries=entries)
        write_atomic(_path(store), table.model_dump_json(indent=1).encode())


def _identity(entry: CostEntry) -> tuple[str, str, str]:
    return entry.unit, entry.toolkit, entry.switches or ""


def _path(store: Path) -> Path:
    return store / "costs.json"


# Seconds of one attention unit over its head dimension, the largest it names: 76 s at 64, 90 at 128, 87 at 256 and 117
# at 512 (nvcc 13.0, 16 compiles at once on 16 cores); split, softcap and packgqa change little, fp8 takes less. Memory
# does not follow the dimension: up to 6.66 GB, 5.94 with fp8, each a little raised here.
_BASE_SECONDS: Final = 75.0
_SECONDS_PER_DIM: Final = 0.08
_BASE_GIB: Final = 6.3
_FP8: Final = "_e4m3"
_FP8_SECONDS: Final = 0.95
_FP8_GIB: Final = 5.7

# An sm80 unit holds both softcaps: 152 s at 128, with split 121, and 7.0 GB.
_BOTH_SOFTCAPS: Final = "_softcapall"
_SECONDS_BOTH_SOFTCAPS: Final = 62.0
_SECONDS_BOTH_SOFTCAPS_SPLIT: Final = 32.0
_GIB_BOTH_SOFTCAPS: Final = 0.3

# Upstream's own units of several head dimensions: 1, 2, 4 and 8 took 90, 125, 155 and 263 s, and 5.3, 8.0, 8.8 and 14.2
# GiB.
_SECONDS_PER_EXTRA: Final = 25.0
_GIB_PER_EXTRA: Final = 1.3
_MANY_DIMS: Final = {"hdimall": (256, 5), "hdimdiff": (256, 3)}

# Sources of one head dimension merged: each further one adds a share of what it takes by itself, 0.33 to 0.36 measured
# for 2, 4 and 6, and 0.55 for sm80 and the head dimension of 512 (benchmarks/merge_groups.py). The first adds up to
# 0.55 GB, further ones 0.25, where they share less 0.8 to 1.2.
_SHARE_PER_SOURCE: Final = 0.36
_GIB_MERGED: Final = 0.25
_GIB_PER_SOURCE: Final = 0.3
_SHARES_LITTLE: Final = re.compile(r"_hdim\d+_512_|_softcapall_")
_SHARE_LITTLE: Final = 0.57
_GIB_LITTLE: Final = 0.95

# cicc and ptxas run once for every -gencode, and took 62 of the 88 s of the hdim128 unit.
_SHARE_PER_TARGET: Final = 0.7

# Kernels that a recipe brings itself have no CUTLASS in them: those of flash-attn-fp32 took 0.2 GB and up to a minute
# for each target, nvcc 13.0 on 2 cores.
_OWN_FOLDER: Final = "kernels/"
_OWN_UNIT: Final = Cost(seconds=60.0, peak_rss=1_000_000_000)
_SMALL_UNITS: Final = {
    "flash_prepare_scheduler": Cost(seconds=35.0, peak_rss=int(1.3 * _GIB)),  # measured
    # Not measured: templates over head dimension and dtype, but no attention kernel.
    "flash_fwd_combine": Cost(seconds=60.0, peak_rss=int(2.5 * _GIB)),
}

# Not measured: a backward unit holds the main kernel with two accumulations and its pre- and postprocess kernels.
_BACKWARD_FACTOR: Final = 1.4

_HEAD_DIM: Final = re.compile(r"hdim(\d+)(?:_(\d+))?_")


# When a merged unit's peak is over, and what it needs from then on, as shares of its expected seconds and peak.
# Eighteen units of five sources, each watched by itself (nvcc 13.0, three times as slow as expected), had their peaks
# before 187 s and held at most 0.50 of them from then on; expected were 190 to 230 s, and schedules allow for such a
# machine (`schedule.LEAST_PACE`).
_CALM_AFTER: Final = 0.3
LATER_SHARE: Final = 0.67
"""What a merged unit needs when its peak is over, of that peak."""


def calm_of(unit: Unit, cost: Cost) -> Calm | None:
    """Say what a unit needs when its peak is over; None if its peak may come at any time.

    Known of merged units alone, which parse and instantiate much before they generate code. cicc does that anew for
    every target, so those of several have several peaks.
    """
    if not unit.merged or unit.gencodes > 1:
        return None
    return Calm(after=_CALM_AFTER * cost.seconds, rss=round(LATER_SHARE * cost.peak_rss))


def _together(unit: Unit, apart: Sequence[Cost]) -> Cost:
    """Guess the cost of a merged unit from what each of its sources costs by itself."""
    little = _SHARES_LITTLE.search(unit.name) is not None
    share, gibibytes = (_SHARE_LITTLE, _GIB_LITTLE) if little else (_SHARE_PER_SOURCE, _GIB_PER_SOURCE)
    longest = max(cost.seconds for cost in apart)
    others = sum(cost.seconds for cost in apart) - longest
    return Cost(
        seconds=longest + share * others,
        peak_rss=max(cost.peak_rss for cost in apart) + round((_GIB_MERGED + gibibytes * (len(apart) - 1)) * _GIB),
    )


def estimate(unit: Unit) -> Cost:
    """Guess a cost from a unit's name; every number is explained where it is defined above.

    The guess leans high in memory: too much set aside costs a little time, too little costs a killed compiler.
    It is used once per unit, since the first compile is learned.
    """
    own = _OWN_UNIT if unit.path.startswith(_OWN_FOLDER) else None
    base = own or _SMALL_UNITS.get(unit.name) or _attention_unit(unit.name)
    targets = 1 + _SHARE_PER_TARGET * (max(unit.gencodes, 1) - 1)
    return Cost(seconds=base.seconds * targets, peak_rss=base.peak_rss)


def _attention_unit(name: str) -> Cost:
    dim, instantiations = _head_dim(name)
    fp8, both = _FP8 in name, _BOTH_SOFTCAPS in name
    seconds = (_BASE_SECONDS + _SECONDS_PER_DIM * dim) * (_FP8_SECONDS if fp8 else 1)
    seconds += _SECONDS_PER_EXTRA * (instantiations - 1)
    gibibytes = (_FP8_GIB if fp8 else _BASE_GIB) + _GIB_PER_EXTRA * (instantiations - 1)
    if both:
        seconds += _SECONDS_BOTH_SOFTCAPS_SPLIT if "_split_" in name else _SECONDS_BOTH_SOFTCAPS
        gibibytes += _GIB_BOTH_SOFTCAPS
    factor = _BACKWARD_FACTOR if "_bwd_" in name else 1.0
    return Cost(seconds=factor * seconds, peak_rss=round(factor * gibibytes * _GIB))


def _head_dim(name: str) -> tuple[int, int]:
    """The largest head dimension a unit's name speaks of, and how many of them it holds; 128 if it names none."""
    for word, dims in _MANY_DIMS.items():
        if word in name:
            return dims
    match = _HEAD_DIM.search(name)
    if match is None:
        return 128, 1
    return max(int(group) for group in match.groups() if group), 1
