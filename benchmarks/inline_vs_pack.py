"""A cold compile by this project against upstream's own way: the same sources, flags for machine code and cores.

    nox -s patch -- profile=fa3-fwd cuda=13.0 merge=off --json > units.json
    python -m benchmarks.inline_vs_pack --units units.json --out figures --without '*_sm80'

`pack` compiles as a build does: units merged by the recipe's rules, as many at once as there is room for, the costliest
first. `inline` is what upstream's setup.py has torch do: one compile for each source, in the order it lists them, by
`ninja` with MAX_JOBS of all cores. `formula` is that with what FlashAttention's packagers take for MAX_JOBS and
NVCC_THREADS: min(cores, GB of memory / 2.8) / 4, and 4. In both, host code is compiled at upstream's own level and
nothing is compressed; the words for machine code are the same.

Each way writes its figures to the folder --out as soon as it ends, and is not compiled again where they stand: a run
that was cut off is repeated, and goes on with what is missing. --way takes one of them. `formula` is slow, so
--formula-seconds ends it: what it finished by then is compared with the same sources of `inline`, and its time is what
all would take at that pace, kept busy to the end.

What each compile of `pack` held over time goes into curves.jsonl there, for `benchmarks/memory_curves.py`.

On a machine with more cores three can run side by side, each with its share, by three commands of one --out:

    python -m benchmarks.inline_vs_pack ... --way pack --cores 0-15 --memory 121 &
    python -m benchmarks.inline_vs_pack ... --way inline --cores 16-31 --memory 121 &
    python -m benchmarks.inline_vs_pack ... --way formula --cores 32-47 --memory 121 & wait
    python -m benchmarks.inline_vs_pack ... --cores 0-15     # compiles nothing any more, and prints the ratios

The last one has to wait for all three: what has no figures yet it would compile.

The whole profile takes 16 cores some 480 s as `pack` and 750 s as `inline`; --without leaves sources out, of all ways.
Takes the machine's own CUDA toolkit. Run from a checkout, with hopperforge's dependencies.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import ninja
from benchmarks.memory_curves import Sampler, curve, write_curves
from benchmarks.merge_groups import RECIPE, Stand, Watch, prepare

from hopperforge.merging import merge_units
from hopperforge.model.pack import Unit
from hopperforge.run.files import write_atomic
from hopperforge.run.machine import memory_in_use, read_machine
from hopperforge.stages.kernels import compile_pack
from hopperforge.unit_words import HOST_LEVEL, UPSTREAM_LEVEL

PACK: Final = "pack"
INLINE: Final = "inline"
FORMULA: Final = "formula"
WAYS: Final = (PACK, INLINE, FORMULA)
CURVES: Final = "curves.jsonl"
GB_A_JOB: Final = 2.8
FORMULA_THREADS: Final = 4
COLUMNS: Final = f"{'way':<9}{'cores':>6}{'jobs':>6}{'wall s':>9}{'CPU s':>10}{'busy':>7}  sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of the machine a way may use; `memory` in bytes, and `budget` those for compiles, if that was said."""

    cores: int
    memory: int
    budget: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one way took: wall and CPU seconds, on how many cores, and how many compiles at once.

    `sources` are the names of all; `seconds` is the wall time of each finished one, where each is compiled by itself.
    """

    way: str
    cores: int
    jobs: int
    wall: float
    cpu: float
    sources: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def finished(self) -> int:
        """How many sources were compiled; a pack is all or nothing."""
        return len(self.sources) if self.way == PACK else len(self.seconds)

    @property
    def whole(self) -> bool:
        """Whether all of them were."""
        return self.finished == len(self.sources)

    def __str__(self) -> str:
        """As the table has it; CPU time of a way that was ended misses what it had begun."""
        cpu = f"{self.cpu:>10.1f}{self.cpu / (self.wall * self.cores):>7.3f}" if self.whole else f"{'-':>10}{'-':>7}"
        return (
            f"{self.way:<9}{self.cores:>6}{self.jobs:>6}{self.wall:>9.1f}{cpu}  {self.finished} of {len(self.sources)}"
        )


# --- the ways


def compile_merged(stand: Stand, share: Share, curves: Path) -> Taken:
    """Compile everything as a build does, and write to `curves` what each unit held meanwhile."""
    units = list(merge_units(sorted(stand.units.values()), stand.project.recipes[RECIPE].merge))
    sizing = stand.sizing(units, None, share.budget)
    print(*sizing.reasons, sep="\n", flush=True)
    watch = Watch()
    before, started = _cpu(), time.monotonic()
    with Sampler() as sampler:
        pack = compile_pack(
            units,
            source=stand.source,
            toolkit=stand.toolkit,
            compiler=stand.compiler,
            sizing=sizing,
            workspace=replace(stand.workspace, reporter=watch),
            in_use=memory_in_use,  # and not what ways beside this one take
        )
    wall, cpu = time.monotonic() - started, _cpu() - before
    costs = {unit: stand.costs.expect(unit, stand.toolkit.version) for unit in units}
    write_curves(curves, [curve(unit, cost, sampler.seen[unit.path]) for unit, cost in costs.items()])
    if pack.compiled != len(units):
        raise SystemExit(f"error: {len(units) - pack.compiled} units were in {stand.workspace.cache} before")
    return Taken(
        way=PACK,
        cores=share.cores,
        jobs=sizing.max_jobs,
        wall=wall,
        cpu=cpu,
        sources=tuple(sorted(stand.units)),
        seconds={},
    )


def compile_inline(stand: Stand, share: Share, way: str, limit: float) -> Taken:
    """Compile each source by itself, `formula` for `limit` seconds at most; SystemExit with ninja's last lines."""
    jobs, threads = (share.cores, 1) if way == INLINE else (formula_jobs(share), FORMULA_THREADS)
    folder = stand.workspace.work / way
    folder.mkdir(parents=True)
    for tree in ("hopper", "csrc"):
        (folder / tree).symlink_to(stand.source.root / tree)
    compress = stand.project.matrix.toolkits[stand.toolkit.version].compress
    compiler = [str(stand.toolkit.nvcc), "-ccbin", str(stand.compiler.path)]
    rules = ninja_rules(list(stand.units.values()), compiler, compress, threads)
    (folder / "build.ninja").write_text(rules, encoding="utf-8")
    argv = [str(Path(ninja.BIN_DIR) / "ninja"), "-j", str(jobs)]
    before, started = _cpu(), time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603  # argv list
        try:
            status = process.wait(limit if way == FORMULA else None)
        except subprocess.TimeoutExpired:
            process.terminate()  # ninja stops its compiles, and keeps the log of those that ended
            process.wait()
            status = 0
    wall, cpu = time.monotonic() - started, _cpu() - before
    if status != 0:
        raise SystemExit("\n".join((folder / "log").read_text("utf-8", errors="replace").splitlines()[-20:]))
    return Taken(
        way=way,
        cores=share.cores,
        jobs=jobs,
        wall=wall,
        cpu=cpu,
        sources=tuple(sorted(stand.units)),
        seconds=read_log(folder / ".ninja_log"),
    )


def ninja_rules(units: Sequence[Unit], compiler: Sequence[str], compress: Sequence[str], threads: int) -> str:
    """Write what torch's build helper writes: one rule, and one object for each source."""
    several = ["--threads", str(threads)] if threads > 1 else []
    rule = f"rule compile\n  command = {_quoted([*compiler, *several])} $words -c $in -o $out\n"
    objects = [
        f"build {unit.name}.o: compile {unit.path}\n  words = {_quoted(upstream_words(unit, compress))}\n"
        for unit in units
    ]
    return "".join([rule, *objects])


def _quoted(words: Sequence[str]) -> str:
    """Give words as ninja hands them to a shell."""
    return shlex.join(words).replace("$", "$$")


def upstream_words(unit: Unit, compress: Sequence[str]) -> tuple[str, ...]:
    """Give a unit's arguments as upstream's setup.py has them; SystemExit if they are not ours."""
    count = len(unit.arguments) - len(compress)
    if unit.arguments[count:] != tuple(compress):
        raise SystemExit(f"error: the words of {unit.name} do not end in {' '.join(compress)}")
    return tuple(UPSTREAM_LEVEL if word == HOST_LEVEL else word for word in unit.arguments[:count])


def read_log(path: Path) -> dict[str, float]:
    """Read how long each object took from ninja's log: start and end in milliseconds, its time, its name."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    fields = [line.split("\t") for line in lines if not line.startswith("#")]
    return {name.removesuffix(".o"): (int(end) - int(start)) / 1000 for start, end, _, name, *_ in fields}


def formula_jobs(share: Share) -> int:
    """Choose MAX_JOBS as the packagers do."""
    return max(1, int(min(share.cores, share.memory / 1e9 / GB_A_JOB) // FORMULA_THREADS))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- what they come to


def comparison(taken: Mapping[str, Taken]) -> list[str]:
    """Say the ratios there are figures for."""
    said = []
    pack, inline, formula = (taken.get(way) for way in WAYS)
    if pack and inline:
        said.append(f"pack to inline: wall {pack.wall / inline.wall:.3f}, CPU {pack.cpu / inline.cpu:.3f}")
    if pack and inline and formula:
        whole = at_pace(formula, inline)
        said.append(f"pack to formula: wall {pack.wall / whole:.3f} of {whole:.0f} s")
    missing = [way for way in WAYS if way not in taken]
    return [*said, f"no figures yet of: {', '.join(missing)}"] if missing else said


def require_same(taken: Mapping[str, Taken], sources: Sequence[str], share: Share) -> None:
    """Raise SystemExit if figures are of other sources or another number of cores, so that ratios would say nothing."""
    other = [way for way, one in taken.items() if (one.sources, one.cores) != (tuple(sources), share.cores)]
    if other:
        raise SystemExit(
            f"error: the figures of {', '.join(other)} are of other sources or not of {share.cores} cores; "
            "give another --out, or the same --without and --cores"
        )


def at_pace(formula: Taken, inline: Taken) -> float:
    """Say how long `formula` takes for everything: as measured, or at the pace of what it ended."""
    if formula.whole:
        return formula.wall
    if not formula.seconds:
        raise SystemExit("error: `formula` finished no source; remove its figures and give more --formula-seconds")
    pace = sum(formula.seconds.values()) / sum(inline.seconds[name] for name in formula.seconds)
    return pace * sum(inline.seconds.values()) / formula.jobs


def read_taken(folder: Path) -> dict[str, Taken]:
    """Read the figures that stand in a folder, by way."""
    paths = {way: folder / f"{way}.json" for way in WAYS}
    read = {way: json.loads(path.read_text("utf-8")) for way, path in paths.items() if path.is_file()}
    return {way: Taken(**{**fields, "sources": tuple(fields["sources"])}) for way, fields in read.items()}


def write_taken(folder: Path, taken: Taken) -> None:
    """Write a way's figures, whole or not at all."""
    write_atomic(folder / f"{taken.way}.json", (json.dumps(asdict(taken), indent=1) + "\n").encode())


# --- the command


def parse_cores(text: str) -> set[int]:
    """Read 0-15,32 as taskset does; ValueError otherwise."""
    ranges = [part.partition("-") for part in text.split(",")]
    return {core for first, dash, last in ranges for core in range(int(first), int(last if dash else first) + 1)}


def share_of_machine(cores: set[int] | None, gigabytes: float | None) -> Share:
    """Keep this process and all it starts to its cores, and say what it may use."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
    machine = read_machine(os.environ)
    budget = None if gigabytes is None else round(gigabytes * 1e9)
    cores_here = min(limit.value for limit in machine.cores)
    return Share(cores=cores_here, memory=budget or min(limit.value for limit in machine.memory), budget=budget)


def compile_way(way: str, share: Share, options: argparse.Namespace) -> Taken:
    """Compile one way, cold: what a run that was cut off left of it is removed."""
    work = options.work / way
    shutil.rmtree(work, ignore_errors=True)
    stand = prepare(argparse.Namespace(**{**vars(options), "work": work}))
    names = sources_of(options.units, options.without)
    stand = replace(stand, units={name: unit for name, unit in stand.units.items() if name in names})
    if way == PACK:
        return compile_merged(stand, share, options.out / CURVES)
    return compile_inline(stand, share, way, options.formula_seconds)


def sources_of(listing: Path, without: Sequence[str]) -> tuple[str, ...]:
    """Name the sources of a unit list that are not left out."""
    (listed,) = json.loads(listing.read_text("utf-8"))
    names = sorted(Path(unit["path"]).stem for unit in listed["units"])
    return tuple(name for name in names if not any(fnmatchcase(name, pattern) for pattern in without))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare a cold compile with upstream's own.")
    parser.add_argument("--units", type=Path, required=True, help="what `patch ... merge=off --json` printed")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the figures; what stands there is kept")
    parser.add_argument("--way", action="append", choices=WAYS, help="again for more; all if none is given")
    parser.add_argument(
        "--without", action="append", default=[], help="a pattern of sources to leave out; again for more"
    )
    parser.add_argument("--cores", type=parse_cores, help="the cores to keep to: 0-15; all if not given")
    parser.add_argument(
        "--memory", type=float, help="GB for compiles, which `formula` divides; what is free if not given"
    )
    parser.add_argument("--formula-seconds", type=float, default=300, help="when to end `formula`")
    parser.add_argument("--tree", type=Path, help="the patched source, if not where the unit list says")
    parser.add_argument("--work", type=Path, default=Path(".hopperforge/inline-vs-pack"), help="where objects are made")
    parser.add_argument("--cuda", default="13.0", help="the version of the machine's toolkit")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Compile what is missing, then print the table and the ratios."""
    options = parse(arguments)
    share = share_of_machine(options.cores, options.memory)
    taken = read_taken(options.out)
    require_same(taken, sources_of(options.units, options.without), share)
    for way in options.way or WAYS:
        if way not in taken:
            taken[way] = compile_way(way, share, options)
            write_taken(options.out, taken[way])
    print(COLUMNS, *taken.values(), *comparison(taken), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
