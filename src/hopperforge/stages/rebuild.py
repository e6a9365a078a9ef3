"""Building a package again in a fresh place, by a hopperforge of its own, under conditions that should not matter.

What is compiled and bound is made anew. What was fetched is used again, for it is checked by hash wherever it lies.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hopperforge.errors import GateError, HopperforgeError, ToolError
from hopperforge.model.record import Record
from hopperforge.run.files import make_folder, write_atomic
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace
from hopperforge.stages.front_inputs import IMAGE_WRITERS, last_writers, packaging_writers
from hopperforge.stages.wheel_archive import read_wheel

FETCHED: Final = ("files", "sources", "toolkits", "torches", "bases")
COMPILED: Final = "store"
_PROJECT: Final = ("matrix.yaml", "Dockerfile.build", "LICENSE", "recipes", "patches", "flash-attention", "image")
_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "flash-attention": ("src",)
}  # what was fetched; recipes' src is ours
_REPORT_LINES: Final = 60
_COMPARED: Final = (0, 1)  # equal, different; any other status is an error of diffoscope's


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a build runs: its umask (octal), how many cores (0: all), and changes of its environment."""

    name: str
    umask: str = "022"
    cores: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)


PLAIN: Final = Conditions(name="again")
FIRST: Final = Conditions(
    name="one", environ={"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "1", "USER": "one", "LOGNAME": "one"}
)
SECOND: Final = Conditions(
    name="another, in a longer place",
    umask="077",
    cores=1,
    environ={"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "2", "USER": "two", "LOGNAME": "two"},
)
"""What differs between two builds that should give the same bytes; the clock differs by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A package built again: where it lies for now, and its record."""

    path: Path
    record: Record


def rebuild(
    words: Sequence[str],
    conditions: Conditions,
    *,
    folder: Path,
    project: Path,
    workspace: Workspace,
    objects: bool = False,
) -> Rebuilt:
    """Build `words` in `folder`, which is new, from the checkout `project`; `objects` says to use compiled ones again.

    Raises the kind of error the build ended with, with its last lines.
    """
    cache = make_folder(folder / "cache")
    for name in (*FETCHED, *((COMPILED,) if objects else ())):
        (cache / name).symlink_to(make_folder(workspace.cache / name), target_is_directory=True)
    house = folder / "wheelhouse"
    environ = {key: value for key, value in workspace.environ.items() if key != "HOPPERFORGE_STORE"}
    environ |= {"HOPPERFORGE_CACHE": str(cache), "HOPPERFORGE_WHEELHOUSE": str(house), **conditions.environ}
    log = make_folder(workspace.logs) / f"reproduce-{conditions.name.partition(',')[0]}.log"
    done = run(
        [
            *(sys.executable, "-m", "hopperforge.run.perturbed", conditions.umask, str(conditions.cores)),
            *("build", *words),
        ],
        cwd=project,
        env=environ,
        log=log,
        on_line=lambda line: workspace.reporter.output("rebuild", line),
        on_heartbeat=lambda seconds: workspace.reporter.note(f"building again since {seconds:.0f} s; log: {log}"),
    )
    if done.status != 0:
        raise _failure(done.status)(
            f"the package could not be built again (status {done.status})", detail=[*done.tail[-20:], f"log: {log}"]
        )
    (path,) = house.glob("*.whl.json")
    return Rebuilt(path=path.with_suffix(""), record=Record.from_json(path.read_bytes(), str(path)))


def other_writers(record: Record, in_images: Mapping[str, str]) -> list[str]:
    """List the tools that wrote a record's wheel and are of another version here, where `in_images` has the images'.

    A wheel that another compressor packed, as the zlib of a Python did before one was pinned, is a case of it.
    """
    then = record.front.tools
    binding = in_images if record.image else packaging_writers()
    now = last_writers(tarball=record.tarball is not None) | {
        name: binding[name] for name in IMAGE_WRITERS if name in then and name in binding
    }
    return [
        f"{name}: {then.get(name, 'not used')} then, {now.get(name, 'not used')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _failure(status: int) -> type[HopperforgeError]:
    kinds = {kind.exit_code: kind for kind in HopperforgeError.__subclasses__()}
    return kinds.get(status, ToolError)


def copy_project(project: Path, into: Path, *, private: bool) -> Path:
    """Copy what a build reads of a checkout; `private` takes every right from group and others."""
    for name in _PROJECT:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns(*_LEFT_OUT.get(name, ()), "__pycache__"))
        elif source.is_file():
            make_folder(into)
            shutil.copy(source, into / name)
    if private:
        for path in (into, *into.rglob("*")):
            path.chmod(path.stat().st_mode & 0o700)
    return into


def different_members(before: Path, after: Path) -> list[str]:
    """List the members of two wheels that differ, with the stage that makes each; the archive itself where none does.

    What repair writes by itself (RECORD, WHEEL, the bill of materials) is named last, for it follows from the rest.
    """
    one, other = read_wheel(before), read_wheel(after)
    names = [
        name for name in sorted(one.files.keys() | other.files.keys()) if one.files.get(name) != other.files.get(name)
    ]
    if not names and one.names == other.names:
        return ["repair: every member is the same, the archives are not"]
    return sorted((f"{_maker(name)}: {name} differs" for name in names), key=lambda line: line.startswith("repair"))


def _maker(member: str) -> str:
    return "repair" if member.endswith((".dist-info/RECORD", ".dist-info/WHEEL", ".cdx.json")) else "front"


def keep_for_a_look(rebuilt: Rebuilt, workspace: Workspace, folder: str = "") -> Path:
    """Copy what came out with other bytes to where refused packages are kept, its record beside it."""
    kept = workspace.cache / "refused" / folder / rebuilt.path.name
    write_atomic(kept, rebuilt.path.read_bytes())
    write_atomic(kept.with_name(f"{kept.name}.json"), rebuilt.record.to_json())
    return kept


def diffoscope(before: Path, after: Path, workspace: Workspace) -> list[str]:
    """Give the first lines of diffoscope's report on two wheels, and where it lies whole; how to get it if it lacks."""
    program = shutil.which("diffoscope", path=workspace.environ.get("PATH", ""))
    if program is None:
        return [f"diffoscope {before} {after}   # says more; apt-get install diffoscope-minimal"]
    report = after.with_name(f"{after.name}.diffoscope.txt")
    report.unlink(missing_ok=True)  # one of an earlier comparison would be taken for this one's
    done = run([program, "--text", report, before, after], cwd=after.parent, env=workspace.environ)
    if done.status not in _COMPARED or not report.is_file():
        return [f"diffoscope ended with status {done.status}", *done.tail[-5:]]
    lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
    return [*lines[:_REPORT_LINES], f"the whole report: {report}"]


def refusal(name: str, guilty: str, detail: Sequence[str], kept: Path) -> GateError:
    """Make the error that says what was not reproduced, and by which stage."""
    return GateError(f"{name} was not reproduced: {guilty}", detail=[*detail, f"what came out now is kept: {kept}"])
