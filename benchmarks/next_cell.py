"""What the next cell costs when the kernels are there: another Python, another torch, a front bound anew.

    python benchmarks/next_cell.py
    python benchmarks/next_cell.py --profile fa3-fwd
    python benchmarks/next_cell.py --library fa3_fwd-0.0.3-cp39-abi3-manylinux_2_24_x86_64.whl --first-cpu 6844

The first build is made if need be, into a wheelhouse that is removed. Then each cell is asked for twice, as typed: the
second time nothing is left to download, and that is the row: wall and CPU seconds of the whole command, and how many
times cheaper that is than the first build in CPU seconds. What the first took is the sum of what its units did, from
its record; --first-cpu says it where it was measured elsewhere.

A front bound anew is linked with the whole pack, repaired and judged by gates. --library says what that takes for a
pack that is not at hand: the library of a wheel of the same kind is put into an object, linked, packed and judged.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hopperforge.config.project import load_project
from hopperforge.errors import GateError
from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.front import FrontKind
from hopperforge.model.record import CompilerFacts, FrontFacts, SourceFacts, ToolkitFacts
from hopperforge.model.request import Kernels
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.model.wheel import RepairedWheel
from hopperforge.provenance.contents import Contents
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.verify import verify
from hopperforge.stages.wheel_archive import read_wheel, write_wheel

PROJECT = Path(__file__).resolve().parents[1]
RECIPE = "fa3-fwd"
ROW = "{:<34}{:>9}{:>9}{:>9}{:>10}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Wall and CPU seconds, of this process and all it started."""

    wall: float
    cpu: float

    def row(self, name: str, compiled: object, first: float | None) -> str:
        """As the table has it; `first` is the CPU seconds of the first build."""
        cheaper = f"{first / self.cpu:.0f}x" if first else "-"
        return ROW.format(name, f"{self.wall:.1f}", f"{self.cpu:.1f}", compiled, cheaper)


def timed(work: Callable[..., object], *arguments: object) -> Spent:
    """Do it with these arguments and say what it took."""
    started, before = time.monotonic(), _cpu()
    work(*arguments)
    return Spent(wall=time.monotonic() - started, cpu=_cpu() - before)


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def build(wheelhouse: Path, options: argparse.Namespace, *words: str) -> int:
    """Type a build; returns how many units it compiled."""
    argv = [sys.executable, "-m", "hopperforge", "build", f"profile={options.profile}", *words, "engine=host", "--json"]
    environ = {**os.environ, "HOPPERFORGE_WHEELHOUSE": str(wheelhouse)}
    done = subprocess.run(argv, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - argv list
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return sum(result["units_compiled"] for result in json.loads(done.stdout)["builds"])


def cells(options: argparse.Namespace, folder: Path) -> None:
    """Print a row for each next cell of the profile."""
    cuda = f"cuda={options.cuda}"
    base = (cuda, "torch=2.9", "python=3.11")
    build(folder / "first", options, *base)
    record = json.loads(next((folder / "first").glob("*.whl.json")).read_text("utf-8"))
    units = [unit["seconds"] for unit in record["pack"]["units"]]
    first = options.first_cpu or sum(units)
    print(f"first build: {len(units)} units, {first:.0f} s of compiling, one after another", flush=True)
    for name, words in {
        "another python, the same wheel": (cuda, "torch=2.9", "python=3.13"),
        "another torch, the same wheel": (cuda, "torch=2.10", "python=3.11"),
    }.items():
        compiled = build(folder / "first", options, *words)
        print(timed(build, folder / "first", options, *words).row(name, compiled, first), flush=True)
    for name, words in {
        "the one wheel bound anew": base,
        "a torch with a wheel of its own": (cuda, "torch=2.8", "python=3.11"),
    }.items():
        compiled = build(folder / "warm", options, *words)
        shutil.rmtree(folder / "warm")
        print(timed(build, folder / "warm", options, *words).row(name, compiled, first), flush=True)
        shutil.rmtree(folder / "warm")


def as_large_as(wheel: Path, options: argparse.Namespace, folder: Path) -> None:
    """Print what linking, packing and judging take for a library as large as that of `wheel`."""
    archive = read_wheel(wheel)
    library = archive.files[archive.binaries[0]]
    (folder / "library").write_bytes(library)
    code = f'.section .nv_fatbin,"a"\n.incbin "{folder / "library"}"\n.section .note.GNU-stack,"",@progbits\n'
    (folder / "pack.s").write_text(code, encoding="utf-8")
    subprocess.run(["g++", "-c", "pack.s", "-o", "pack.o"], cwd=folder, check=True)  # noqa: S607 - the machine's own
    flags = ("-shared", "-Wl,--gc-sections", "-Wl,--strip-all", "-Wl,--build-id=sha1")
    link = ["g++", *flags, "pack.o", "-o", "linked.so"]
    rows = {
        "link": timed(lambda: subprocess.run(link, cwd=folder, check=True)),  # noqa: S603 - argv list
        "pack": timed(lambda: write_wheel(folder / wheel.name, archive, epoch=0)),
        "gates": timed(lambda: judge(folder / wheel.name, folder)),
    }
    print(f"a library of {len(library) / 1e6:.1f} MB:")
    for name, spent in rows.items():
        print(spent.row(f"  {name}", 0, options.first_cpu))
    together = Spent(wall=sum(row.wall for row in rows.values()), cpu=sum(row.cpu for row in rows.values()))
    print(together.row("  together", 0, options.first_cpu))


def judge(wheel: Path, folder: Path) -> None:
    """Run every gate; that a wheel of somebody else's fails some is no matter."""
    project = load_project(PROJECT)
    recipe = project.recipes[RECIPE]
    cuda = ToolkitVersion.parse("13.0")
    made = Build(
        recipe=recipe,
        profile=recipe.profiles["fa3-fwd"],
        cuda=cuda,
        torch=project.matrix.stable_floor,
        abi=AbiClass.STABLE,
        platform="linux_x86_64",
        kernels=Kernels.PACK,
        cells=(),
    )
    workspace = Workspace(
        project=PROJECT, cache=folder / "cache", wheelhouse=folder, environ=dict(os.environ), reporter=Recorder()
    )
    driver = project.matrix.toolkits[cuda].driver
    with suppress(GateError):
        verify(
            RepairedWheel(path=wheel, platform_tags=()),
            build=made,
            driver=driver,
            requires=(),
            contents=unknown(made, cuda),
            workspace=workspace,
        )


def unknown(made: Build, cuda: ToolkitVersion) -> Contents:
    """Contents of which nothing is known, as of a wheel of somebody else's."""
    return Contents(
        name=made.recipe.package.distribution,
        version=made.version,
        source=SourceFacts(pin="", commit="", epoch=0, trees={}, origin="", patches={}, kernel_tree="", front_tree=""),
        toolkit=ToolkitFacts(version=cuda, release="", origin=ToolkitOrigin.REGISTRY, fingerprint={}),
        host_compiler=CompilerFacts(version="", fingerprint={}),
        image=None,
        front=FrontFacts(kind=FrontKind.TORCH_UPSTREAM, framework=None, sources={}, flags=(), tools={}),
        licences={},
    )


def main(arguments: Sequence[str]) -> int:
    """Do as asked."""
    parser = argparse.ArgumentParser(description="Measure what the next cell costs.")
    parser.add_argument("--profile", default="hdim128-bf16")
    parser.add_argument("--cuda", default="12.4+ptxas12.8", help="the toolkit")
    parser.add_argument("--library", type=Path, help="a wheel whose library is as large as the one in question")
    parser.add_argument("--first-cpu", type=float, help="CPU seconds of the first build, measured elsewhere")
    options = parser.parse_args(arguments)
    print(ROW.format("", "wall s", "CPU s", "compiled", "cheaper"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.library is None:
            cells(options, Path(folder))
        else:
            as_large_as(options.library.resolve(), options, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
