"""What compiling several sources in one compile saves: time, memory, and a proof that no kernel changes.

    nox -s patch -- profile=fa3-fwd cuda=13.0 merge=off --json > units.json
    python benchmarks/merge_groups.py groups --units units.json --out groups.jsonl
    python benchmarks/merge_groups.py profile --units units.json --out profile.json

`groups` compiles a sample of sources by themselves and merged by 2, 4, 6 and 8, prints a row as each ends, then
compares every kernel of a merged object with that of the single ones, instruction by instruction, as text and as
encoded, and exits with 1 if any differs. What stands in the file of --out is not compiled again. `profile` compiles all
units as the recipe merges them (--merge off: each by itself) and prints wall and CPU seconds, how busy the cores were,
the memory held, and each unit's cost.

Both take the machine's own CUDA toolkit, and as many cores and as much memory as the machine has free. --tree says
where the patched source is if not where `patch` put it. Run from a checkout, with hopperforge's dependencies.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hopperforge.config.project import Project, load_project
from hopperforge.errors import CompileError
from hopperforge.executors.base import Task
from hopperforge.executors.local import LocalExecutor
from hopperforge.merging import merge_units
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import Cost, Unit
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.toolkit import HostCompiler, Toolkit
from hopperforge.model.upstream import PatchedSource
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Progress, Recorder
from hopperforge.run.machine import read_machine
from hopperforge.run.workspace import Workspace
from hopperforge.sizing import size
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.kernels import compile_pack, wrapper_text
from hopperforge.stages.toolkit import obtain_toolkit
from hopperforge.store.costs import CostTable, load_costs, switches_digest

RECIPE = "fa3-fwd"
PLAIN, GQA, CAP, CAP_GQA = "", "_packgqa", "_softcap", "_softcap_packgqa"
SPLIT, SPLIT_CAP = "_split", "_split_softcap"
UNSPLIT = (PLAIN, GQA, CAP, CAP_GQA)
EVERY = (*UNSPLIT, SPLIT, SPLIT_CAP)
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?P<text>.*?)\s*/\* (?P<code>0x[0-9a-f]{16}) \*/\s*")
SECOND_HALF = re.compile(r"\s+/\* (?P<code>0x[0-9a-f]{16}) \*/\s*")
COLUMNS = f"{'sources':>7}{'wall s':>8}{'CPU s':>8}{'CPU/src':>9}{'peak GB':>9}  group"


def sm90(dim: str, kind: str, *features: str) -> tuple[str, ...]:
    """Name the sources of one head dimension and type."""
    return tuple(f"flash_fwd_hdim{dim}_{kind}{feature}_sm90" for feature in features)


def sm80(dim: str, *features: str) -> tuple[str, ...]:
    """Name the sources of one head dimension for A100; each holds four instantiations already."""
    return tuple(f"flash_fwd_hdim{dim}_bf16{feature}_softcapall_sm80" for feature in features)


# What each row is for: alone, by feature, by head dimension, by type, all features, and the largest that could be.
SAMPLE: Mapping[str, tuple[str, ...]] = {
    **{f"alone 128 bf16{feature}": sm90("128", "bf16", feature) for feature in EVERY},
    "alone 64 bf16": sm90("64", "bf16", PLAIN),
    "alone 128 e4m3": sm90("128", "e4m3", PLAIN),
    "alone 256 bf16": sm90("256", "bf16", PLAIN),
    "alone 64_512 bf16": sm90("64_512", "bf16", PLAIN),
    "alone 128 sm80": sm80("128", PLAIN),
    "alone 128 split sm80": sm80("128", SPLIT),
    "packgqa": sm90("128", "bf16", PLAIN, GQA),
    "softcap": sm90("128", "bf16", PLAIN, CAP),
    "softcap, of split": sm90("128", "bf16", SPLIT, SPLIT_CAP),
    "head dim": (*sm90("64", "bf16", PLAIN), *sm90("128", "bf16", PLAIN)),
    "split sm80": sm80("128", PLAIN, SPLIT),
    "packgqa, softcap": sm90("128", "bf16", *UNSPLIT),
    "packgqa, head dim": (*sm90("64", "bf16", PLAIN, GQA), *sm90("128", "bf16", PLAIN, GQA)),
    "all of 128 bf16": sm90("128", "bf16", *EVERY),
    "all of 128 e4m3": sm90("128", "e4m3", *EVERY),
    "all of 256 bf16": sm90("256", "bf16", *EVERY),
    "first three of 64_512 bf16": sm90("64_512", "bf16", PLAIN, GQA, CAP),
    "packgqa, softcap, head dim": (*sm90("64", "bf16", *UNSPLIT), *sm90("128", "bf16", *UNSPLIT)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What every compile here shares."""

    project: Project
    units: Mapping[str, Unit]
    source: PatchedSource
    toolkit: Toolkit
    compiler: HostCompiler
    workspace: Workspace
    costs: CostTable

    def sizing(self, units: Sequence[Unit], jobs: int | None, memory: int | None = None) -> Sizing:
        """Choose the settings as a build does; `jobs` and `memory` are the words of that name."""
        return size(
            read_machine(self.workspace.environ),
            jobs=jobs,
            memory=memory,
            gencodes=max(unit.gencodes for unit in units),
            unit_peak=max(self.costs.expect(unit, self.toolkit.version).peak_rss for unit in units),
            units=len(units),
            needs=[self.costs.need(unit, self.toolkit.version) for unit in units],
        )


def prepare(options: argparse.Namespace) -> Stand:
    """Read the unit list and find the compilers."""
    project = load_project(Path(__file__).resolve().parents[1])
    (listed,) = json.loads(options.units.read_text("utf-8"))
    work = options.work.resolve()
    workspace = Workspace(
        project=Path.cwd(), cache=work, wheelhouse=work / "wheels", environ=dict(os.environ), reporter=Recorder()
    )
    fact = project.matrix.toolkits[ToolkitVersion.parse(options.cuda)]
    source = PatchedSource(
        pin=project.pin_of(project.recipes[RECIPE]),
        root=(options.tree or Path(listed["tree"])).resolve(),
        origin="benchmark",
        patches=listed["patches"],
        kernel_tree=listed["kernel_tree"],
        front_tree="",
    )
    units = [Unit(path=unit["path"], arguments=tuple(unit["arguments"]), sees=unit["sees"]) for unit in listed["units"]]
    return Stand(
        project=project,
        units={unit.name: unit for unit in units},
        source=source,
        toolkit=obtain_toolkit(fact, ToolkitChoice.SYSTEM, workspace),
        compiler=find_host_compiler(workspace.environ, fact.gcc_max),
        workspace=workspace,
        costs=load_costs(work / "store", workspace.reporter),
    )


# --- groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one compile took; `seconds` wall, `cpu` of all its processes, `peak` bytes of the largest."""

    name: str
    sources: tuple[str, ...]
    seconds: float
    cpu: float
    peak: int

    def __str__(self) -> str:
        """As the table has it."""
        numbers = f"{len(self.sources):>7}{self.seconds:>8.1f}{self.cpu:>8.1f}{self.cpu / len(self.sources):>9.1f}"
        return f"{numbers}{self.peak / 1e9:>9.2f}  {self.name}"


def merged(stand: Stand, names: Sequence[str]) -> Unit:
    """Make one unit of sources named; their arguments have to be the same."""
    members = [stand.units[name] for name in names]
    if len({unit.arguments for unit in members}) != 1:
        raise SystemExit(f"error: {', '.join(names)} have different arguments")
    if len(members) == 1:
        return members[0]
    sources = tuple(unit.path for unit in members)
    return Unit(path=f"merged/{_digest(names)}.cu", arguments=members[0].arguments, merged=sources)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]


def compile_group(stand: Stand, name: str, names: Sequence[str]) -> Row:
    """Compile a group in a folder of its own; CompileError with nvcc's last lines."""
    unit = merged(stand, names)
    folder = stand.workspace.work / _digest(names)
    folder.mkdir(parents=True, exist_ok=True)
    for tree in ("hopper", "csrc"):
        link = folder / tree
        link.unlink(missing_ok=True)
        link.symlink_to(stand.source.root / tree)
    (folder / "unit.cu").write_text(wrapper_text(unit), encoding="utf-8")
    (folder / "unit.o").unlink(missing_ok=True)
    argv = [str(stand.toolkit.nvcc), "-ccbin", str(stand.compiler.path), *unit.arguments]
    argv += ["-objtemp", "-c", "unit.cu", "-o", "unit.o"]
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603  # argv list
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        tail = (folder / "log").read_text("utf-8", errors="replace").splitlines()[-20:]
        raise CompileError(f"{name} ended with status {process.returncode}", detail=tail)
    cpu = usage.ru_utime + usage.ru_stime
    return Row(name=name, sources=tuple(names), seconds=seconds, cpu=cpu, peak=usage.ru_maxrss * 1024)


def read_rows(path: Path) -> dict[str, Row]:
    """Read what an earlier run measured."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    read = [json.loads(line) for line in lines]
    return {row["name"]: Row(**{**row, "sources": tuple(row["sources"])}) for row in read}


def groups(stand: Stand, options: argparse.Namespace) -> int:
    """Measure the sample, longest first, then compare kernels."""
    rows = read_rows(options.out)
    print(COLUMNS, flush=True)
    for row in rows.values():
        print(row, flush=True)
    missing = {name: names for name, names in SAMPLE.items() if name not in rows}
    deadline = time.monotonic() + options.seconds
    if missing:
        for row in measure(stand, missing, options.jobs, deadline, options.out):
            rows[row.name] = row
    skipped = [name for name in SAMPLE if name not in rows]
    if skipped:
        print(f"not enough time for: {'; '.join(skipped)}; the same command goes on there")
    return compare(stand, rows)


def measure(
    stand: Stand, missing: Mapping[str, tuple[str, ...]], jobs: int | None, deadline: float, out: Path
) -> Iterable[Row]:
    """Compile groups side by side under the local executor; none that would hardly end before `deadline` is begun."""
    units = {name: merged(stand, names) for name, names in missing.items()}
    sizing = stand.sizing(list(units.values()), jobs)
    lock = threading.Lock()

    def work(task: Task, _: threading.Event) -> Row | None:
        if time.monotonic() + task.cost.seconds > deadline:
            return None
        row = compile_group(stand, task.name, missing[task.name])
        fields = {"name": row.name, "sources": row.sources, "seconds": row.seconds, "cpu": row.cpu, "peak": row.peak}
        with lock, out.open("a", encoding="utf-8") as stream:
            print(row, flush=True)
            print(json.dumps(fields), file=stream, flush=True)
        return row

    tasks = [Task(name=name, cost=stand.costs.expect(unit, stand.toolkit.version)) for name, unit in units.items()]
    executor = LocalExecutor(jobs=jobs or len(os.sched_getaffinity(0)), memory=sizing.memory, reporter=Recorder())
    outcome = executor.run(tasks, work, lambda _: None)
    for error in outcome.failures.values():
        print(f"error: {error}")
    return [row for row in outcome.finished.values() if row is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The instructions of a kernel for one target: each as text with operands, and as the bytes it is encoded in."""

    texts: tuple[str, ...]
    codes: tuple[str, ...]


def compare(stand: Stand, rows: Mapping[str, Row]) -> int:
    """Print, for each merged object whose sources were compiled singly too, whether its kernels are the same."""
    single = {row.sources[0]: row for row in rows.values() if len(row.sources) == 1}
    whole = [row for row in rows.values() if len(row.sources) > 1 and single.keys() >= set(row.sources)]
    wanted = {row.sources for row in whole} | {(source,) for row in whole for source in row.sources}
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(wanted, pool.map(lambda names: kernels(stand, names), wanted), strict=True))
    different = 0
    print(f"\n{'kernels':>7}{'text':>6}{'code':>6}  the same in a merged object as in its sources compiled singly")
    for row in whole:
        apart = {name: kernel for source in row.sources for name, kernel in found[(source,)].items()}
        together = found[row.sources]
        both = [(name, kernel, together[name]) for name, kernel in apart.items() if name in together]
        texts = sum(one.texts == other.texts for _, one, other in both)
        codes = sum(one.codes == other.codes for _, one, other in both)
        different += 2 * len(apart.keys() | together.keys()) - texts - codes
        print(f"{len(together):>7}{texts:>6}{codes:>6}  {row.name}")
        for name in sorted(apart.keys() ^ together.keys()):
            print(f"    {name} is in {'the merged object' if name in together else 'a single one'} alone")
        for name, one, other in both:
            if one != other:
                print(f"    {name}\n{first_difference(one, other)}")
    return 1 if different else 0


def first_difference(one: Kernel, other: Kernel) -> str:
    """Show the first instruction that differs, singly and merged."""
    pairs = zip_longest(zip(one.texts, one.codes, strict=True), zip(other.texts, other.codes, strict=True))
    number, (left, right) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
    lines = [
        f"{which} {found[1]}  {found[0]}" if found else f"{which} has ended"
        for which, found in (("single", left), ("merged", right))
    ]
    return "\n".join([f"      instruction {number}", *(f"      {line}" for line in lines)])


def kernels(stand: Stand, names: Sequence[str]) -> dict[str, Kernel]:
    """Read the SASS of every kernel of an object, by mangled name and target."""
    path = f"{Path(stand.toolkit.nvcc).parent}:{stand.workspace.environ.get('PATH', os.defpath)}"
    program = shutil.which("cuobjdump", path=path)
    if program is None:
        raise SystemExit("error: no cuobjdump in the toolkit or on PATH, so no kernel was compared")
    unit = stand.workspace.work / _digest(names) / "unit.o"
    environ = {**stand.workspace.environ, "PATH": path}  # it looks for nvdisasm there
    done = subprocess.run([program, "-sass", unit], check=True, capture_output=True, text=True, env=environ)  # noqa: S603  # argv list
    return dict(read_kernels(done.stdout))


def read_kernels(listing: str) -> Iterator[tuple[str, Kernel]]:
    """Part what `cuobjdump -sass` prints.

    It puts all encodings of a listing into one column, as far right as the longest instruction of the object demands:
    the same kernel is printed with other blanks beside other kernels, so lines are no good for comparing.
    """
    for target in re.split(r"(?m)^Fatbin elf code:$", listing)[1:]:
        arch = re.search(r"(?m)^arch = (\S+)", target)
        for text in re.split(r"(?m)^\s*Function : ", target)[1:]:
            name, _, body = text.partition("\n")
            yield f"{arch[1] if arch else ''} {name.strip()}", _kernel(body)


def _kernel(body: str) -> Kernel:
    texts: list[str] = []
    codes: list[str] = []
    for line in body.splitlines():
        if found := INSTRUCTION.fullmatch(line):
            texts.append(found["text"])
            codes.append(found["code"])
        elif found := SECOND_HALF.fullmatch(line):
            codes[-1] += f" {found['code']}"
    if not texts:
        raise SystemExit("error: cuobjdump's listing was not understood: a kernel without instructions")
    return Kernel(texts=tuple(texts), codes=tuple(codes))


# --- profile


class Watch(Recorder):
    """Keeps when each unit was last waiting and the most memory held, and prints a line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()
        self.last_start = 0.0
        self.most = 0
        self.seen: set[str] = set()
        self.told = 0.0

    def progress(self, progress: Progress) -> None:
        """Look at a moment."""
        now = time.monotonic() - self.started
        if not self.seen.issuperset(progress.running):
            self.seen.update(progress.running)
            self.last_start = now
        self.most = max(self.most, progress.in_use or 0)
        if now - self.told >= 15:
            self.told = now
            held = f"{(progress.in_use or 0) / 1e9:.1f} of {progress.memory / 1e9:.1f} GB expected"
            print(
                f"{now:6.0f} s  {progress.done}/{progress.total} done, {len(progress.running)} at work, {held}",
                flush=True,
            )


def profile(stand: Stand, options: argparse.Namespace) -> int:
    """Compile every unit as a build does and write what it took; what is in the work folder already is not counted."""
    units = sorted(stand.units.values())
    if options.merge == "on":
        units = list(merge_units(units, stand.project.recipes[RECIPE].merge))
    sizing = stand.sizing(units, options.jobs)
    watch = Watch()
    workspace = Workspace(
        project=stand.workspace.project,
        cache=stand.workspace.cache,
        wheelhouse=stand.workspace.wheelhouse,
        environ=stand.workspace.environ,
        reporter=watch,
    )
    for reason in sizing.reasons:
        print(reason, flush=True)
    before = _cpu()
    pack = compile_pack(
        units,
        source=stand.source,
        toolkit=stand.toolkit,
        compiler=stand.compiler,
        sizing=sizing,
        workspace=workspace,
    )
    wall, cpu = time.monotonic() - watch.started, _cpu() - before
    entries = [_entry(stand, unit, packed.cost) for unit, packed in zip(sorted(units), pack.units, strict=True)]
    report: dict[str, Any] = {
        "merge": options.merge,
        "units": len(units),
        "compiled": pack.compiled,
        "jobs": sizing.max_jobs,
        "wall": round(wall, 1),
        "cpu": round(cpu, 1),
        "busy": round(cpu / (wall * sizing.max_jobs), 3),
        "last_start": round(watch.last_start, 1),
        "most_memory": watch.most,
        "pack_size": pack.archive.stat().st_size,
        "pack_sha256": pack.sha256,
        "entries": entries,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for entry in sorted(entries, key=lambda entry: -entry["seconds"]):
        print(f"{entry['seconds']:8.1f} s {entry['peak_rss'] / 1e9:6.2f} GB  {Path(entry['unit']).stem}")
    print(json.dumps({key: value for key, value in report.items() if key != "entries"}))
    return 0


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _entry(stand: Stand, unit: Unit, cost: Cost | None) -> dict[str, Any]:
    """A line of a cost table; see store/costs.py."""
    if cost is None:
        raise SystemExit(f"error: {unit.name} was compiled without measuring it")
    return {
        "toolkit": str(stand.toolkit.version),
        "unit": unit.path,
        "switches": switches_digest(unit),
        "seconds": round(cost.seconds, 1),
        "peak_rss": cost.peak_rss,
    }


# --- the command


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what merging units saves.")
    parser.add_argument("what", choices=("groups", "profile"))
    parser.add_argument("--units", type=Path, required=True, help="what `patch ... merge=off --json` printed")
    parser.add_argument("--out", type=Path, required=True, help="where figures go; `groups` goes on with what is there")
    parser.add_argument("--tree", type=Path, help="the patched source, if not where the unit list says")
    parser.add_argument("--work", type=Path, default=Path(".hopperforge/merge-groups"), help="where objects are kept")
    parser.add_argument("--cuda", default="13.0", help="the version of the machine's toolkit")
    parser.add_argument("--jobs", type=int, help="compiles at once, if not as many as the machine has room for")
    parser.add_argument("--seconds", type=float, default=400, help="`groups` begins nothing it could not end by then")
    parser.add_argument("--merge", choices=("on", "off"), default="on", help="`profile`: by the recipe's rules or not")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Do as asked."""
    options = parse(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    stand = prepare(options)
    return {"groups": groups, "profile": profile}[options.what](stand, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
