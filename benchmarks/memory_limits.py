"""Whether compiles keep within a memory limit: a few real units, compiled cold in cgroups of 8, 12 and 24 GiB.

    sudo python benchmarks/memory_limits.py
    sudo python benchmarks/memory_limits.py --limit 8 --unit flash_fwd_hdim128_bf16_sm90

Each limit gets a memory cgroup of its own (version 1 or 2; root makes it), in which a process reads the machine, sizes
the compile and runs it, as a build does. A row says what the limit left for compiles, how many ran at once, the most
anonymous memory of the whole group (sampled twice a second; pages of files, which the kernel gives back, are left out),
how often the kernel killed in it, and wall seconds. Exit status 1 if anything was killed or a peak was above its limit.

Below the table stands what a build of the whole profile fa3-fwd, its units merged, is told on such a machine.

Toolkit and source are those of the cache (HOPPERFORGE_CACHE), fetched if need be; objects and costs learned are not:
they are made in a folder that is removed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hopperforge.config.project import load_project
from hopperforge.merging import merge_units
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import Unit
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.machine import read_machine
from hopperforge.run.workspace import Workspace
from hopperforge.sizing import size
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.kernels import compile_pack
from hopperforge.stages.patch import list_units, patch_source
from hopperforge.stages.source import fetch_source
from hopperforge.stages.toolkit import obtain_toolkit
from hopperforge.store.costs import load_costs

GIBIBYTE = 2**30
GROUPS = Path("/sys/fs/cgroup")
RECIPE, PROFILE = "fa3-fwd", "fa3-fwd"
UNITS = ("flash_fwd_hdim64_bf16_sm90", "flash_fwd_hdim128_bf16_sm90", "flash_prepare_scheduler")
PROJECT = Path(__file__).resolve().parents[1]
HEADER = f"{'limit':>7}{'for compiles':>14}{'at once':>9}{'peak GiB':>10}{'killed':>8}{'wall s':>8}"


# --- inside the cgroup


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Size and compile as a build does, from an empty store; returns what is told of it."""
    project = load_project(PROJECT)
    cache = Path(os.environ.get("HOPPERFORGE_CACHE") or Path.home() / ".cache/hopperforge")
    shared = Workspace(
        project=PROJECT, cache=cache, wheelhouse=cache / "none", environ=dict(os.environ), reporter=Recorder()
    )
    recipe = project.recipes[RECIPE]
    fact = project.matrix.toolkits[ToolkitVersion.parse(options.cuda)]
    source = patch_source(fetch_source(project.pin_of(recipe), shared), shared)
    torch = project.matrix.torches[project.matrix.stable_floor].release
    listed = list_units(source, recipe.profiles[PROFILE], fact, torch, shared)
    chosen = [unit for unit in listed if unit.name in options.unit]
    toolkit = obtain_toolkit(fact, ToolkitChoice.AUTO, shared)
    merged = sizing_of(merge_units(listed, recipe.merge), fact.version)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        workspace = replace(shared, cache=Path(folder))
        sizing = sizing_of(chosen, fact.version)
        started = time.monotonic()
        pack = compile_pack(
            chosen,
            source=source,
            toolkit=toolkit,
            compiler=find_host_compiler(shared.environ, fact.gcc_max),
            sizing=sizing,
            workspace=workspace,
        )
        seconds = time.monotonic() - started
    return {
        "budget": sizing.memory,
        "jobs": sizing.max_jobs,
        "seconds": seconds,
        "compiled": pack.compiled,
        "warned": workspace.reporter.warnings if isinstance(workspace.reporter, Recorder) else [],
        "merged": merged.reasons[3:] or [f"{merged.max_jobs} merged units at once"],
    }


def sizing_of(units: Sequence[Unit], version: ToolkitVersion) -> Sizing:
    """Choose the settings as a build does, by the costs that are shipped."""
    costs = load_costs(Path("/nonexistent"), Recorder())
    largest = max(units, key=lambda unit: costs.expect(unit, version).peak_rss)
    return size(
        read_machine(os.environ),
        jobs=None,
        memory=None,
        gencodes=max(unit.gencodes for unit in units),
        unit_peak=costs.expect(largest, version).peak_rss,
        units=len(units),
        merged=bool(largest.merged),
        needs=[costs.need(unit, version) for unit in units],
    )


# --- outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A memory cgroup of either version."""

    folder: Path
    version: int

    def set_limit(self, limit: int) -> None:
        """Hold the group to `limit` bytes, none of them in swap."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(limit))

    def anonymous(self) -> int:
        """Bytes now held that only swapping could give back."""
        fields = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return int(fields["anon" if self.version == 2 else "total_rss"])

    def killed(self) -> int:
        """How often the kernel killed in the group."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        fields = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(fields["oom_kill"])


@contextmanager
def group_of(limit: int) -> Iterator[Group]:
    """Make a memory cgroup below this process's own, and remove it."""
    version = 2 if (GROUPS / "cgroup.controllers").exists() else 1
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    root = GROUPS if version == 2 else GROUPS / "memory" / own["memory"].lstrip("/")
    group = Group(folder=root / f"hopperforge-limit-{os.getpid()}-{limit}", version=version)
    group.folder.mkdir()
    try:
        group.set_limit(limit)
        yield group
    finally:
        for _ in range(50):
            with suppress(OSError):
                group.folder.rmdir()
                break
            time.sleep(0.1)


def watch(group: Group, peaks: list[int], over: threading.Event) -> None:
    """Sample the group twice a second."""
    while not over.wait(0.5):
        peaks.append(group.anonymous())


def row(limit: int, options: argparse.Namespace) -> bool:
    """Compile under a limit of so many GiB and print the row; True if nothing was killed and the peak was within."""
    words = [word for unit in options.unit for word in ("--unit", unit)]
    command = [sys.executable, __file__, "--cuda", options.cuda, *words, "--inside"]
    with group_of(limit * GIBIBYTE) as group:
        peaks: list[int] = []
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(group, peaks, over))
        watcher.start()
        try:
            done = subprocess.run(  # noqa: S603 - our own file, argv list
                [*command, str(group.folder)], stdout=subprocess.PIPE, check=False, text=True
            )
        finally:
            over.set()
            watcher.join()
        peak, killed = max(peaks, default=0), group.killed()
    if done.returncode != 0:
        print(f"{limit:>4} GiB  failed with status {done.returncode}; killed {killed}, peak {peak / GIBIBYTE:.1f} GiB")
        return False
    said = json.loads(done.stdout.splitlines()[-1])
    budget, seconds = said["budget"] / GIBIBYTE, said["seconds"]
    print(
        f"{limit:>4} GiB{budget:>14.1f}{said['jobs']:>9}{peak / GIBIBYTE:>10.1f}{killed:>8}{seconds:>8.0f}", flush=True
    )
    for line in said["warned"]:
        print(f"         {line}")
    for line in said["merged"]:
        print(f"         merged: {line}", flush=True)
    return killed == 0 and peak <= limit * GIBIBYTE


def main(arguments: Sequence[str]) -> int:
    """Do as asked."""
    parser = argparse.ArgumentParser(description="Compile under memory limits.")
    parser.add_argument("--limit", type=int, action="append", help="GiB; again for more (8, 12 and 24)")
    parser.add_argument("--unit", action="append", help="a source's name without .cu; again for more")
    parser.add_argument("--cuda", default="12.4+ptxas12.8", help="the toolkit")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.unit = options.unit or list(UNITS)
    if options.inside is not None:
        (options.inside / "cgroup.procs").write_text(str(os.getpid()))
        print(json.dumps(measure(options)))
        return 0
    print(f"{len(options.unit)} units: {', '.join(options.unit)}\n{HEADER}", flush=True)
    fine = [row(limit, options) for limit in options.limit or (8, 12, 24)]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
