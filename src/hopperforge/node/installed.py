"""Installed packages of the FlashAttention family, and what is wrong with their files."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import Any

from hopperforge.node.looking import isolated, name_of
from hopperforge.node.values import Finding, Package, problem
from hopperforge.node.versions import normal

FAMILY = frozenset({"fa3-fwd", "flash-attn-3", "flash-attn", "flash-attention-3"})


def installed_under(paths: Iterable[str]) -> tuple[Distribution, ...]:
    """List what is installed in folders, in their order; a folder named twice, or through a link, counts once."""
    folders = dict.fromkeys(str(Path(path).resolve()) for path in paths)
    return tuple(distributions(path=list(folders)))


def look_at_packages(
    own: Sequence[Distribution], paths: Sequence[str], projects: Iterable[str], *, imports: bool
) -> tuple[Package, ...]:
    """Find installed packages of the FlashAttention family and of `projects`, and what is wrong with their files.

    Those of `projects` are imported if `imports`: others are none of ours to judge.
    """
    ours = {normal(project) for project in projects}
    found = [one for one in own if name_of(one) in FAMILY | ours]
    return tuple(
        Package(
            project=name_of(one),
            version=one.version,
            place=str(one.locate_file("")),
            troubles=(
                *_twice(one, found),
                *_damage(one),
                *_shared_files(one, found),
                *(_hidden(one, paths) if name_of(one) in ours else ()),
                *(import_trouble(one) if imports and name_of(one) in ours else ()),
            ),
        )
        for one in found
    )


def _trouble(one: Distribution, what: str, *others: str) -> Finding:
    names = " ".join(dict.fromkeys((name_of(one), *others)))
    mend = f"pip uninstall -y {names}   # until nothing of it is left; then install as shown below"
    return problem(f"{name_of(one)} {one.version} in {one.locate_file('')}: {what}", mend)


def _twice(one: Distribution, found: Iterable[Distribution]) -> Iterable[Finding]:
    same = [other for other in found if name_of(other) == name_of(one) and other is not one]
    if same:
        others = ", ".join(f"{other.version} in {other.locate_file('')}" for other in same)
        yield _trouble(one, f"it is installed more than once, and one hides the other: {others}")


def files_of(one: Distribution) -> tuple[tuple[PurePosixPath, str], ...]:
    """Read the files of a package and their sha256 off its RECORD, "" where it names none.

    Not by Distribution.files: from Python 3.12 on that leaves out files that are missing.
    """
    rows = csv.reader((one.read_text("RECORD") or "").splitlines())
    return tuple((PurePosixPath(row[0]), row[1].partition("sha256=")[2]) for row in rows if len(row) > 1)


def _damage(one: Distribution) -> Iterable[Finding]:
    """Compare every file with the hash in RECORD."""
    files = files_of(one)
    if not files:
        yield _trouble(one, "it has no RECORD of its files")
    for file, expected in files:
        path = Path(str(one.locate_file(file)))
        if not path.is_file():
            if file.suffix != ".pyc":
                yield _trouble(one, f"{file} is missing")
        elif expected:
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
            if digest != expected:
                yield _trouble(one, f"{file} is not the file of its RECORD: it was changed or overwritten")


def _python_files(one: Distribution) -> frozenset[str]:
    return frozenset(str(one.locate_file(file)) for file, _ in files_of(one) if file.suffix == ".py")


def _shared_files(one: Distribution, found: Iterable[Distribution]) -> Iterable[Finding]:
    """Find packages of another name that installed the same file, for the later one overwrote it."""
    for other in found:
        both = sorted(_python_files(one) & _python_files(other))
        if both and name_of(other) != name_of(one):
            what = f"{both[0]} was installed by {name_of(other)} {other.version} too: the later overwrote the earlier"
            yield _trouble(one, what, name_of(other))


def _modules(one: Distribution) -> list[str]:
    """The modules at the top of a package."""
    files = [file for file, _ in files_of(one) if file.suffix == ".py"]
    tops = {file.parts[0] if len(file.parts) > 1 else file.stem for file in files}
    return sorted(name for name in tops if name.isidentifier())


def _hidden(one: Distribution, paths: Sequence[str]) -> Iterable[Finding]:
    """Find files that an import takes in the place of the package's own."""
    folders = [str(Path(path).resolve()) for path in paths]
    for name in _modules(one):
        spec = PathFinder.find_spec(name, folders)
        if spec is not None and spec.origin is not None and spec.origin not in _python_files(one):
            what = f"{name_of(one)} {one.version}: import {name} finds {spec.origin} in its place"
            yield problem(what, f"remove {spec.origin}, or take its folder out of PYTHONPATH")


def import_trouble(one: Distribution) -> Iterable[Finding]:
    """Import what a package brings, in a process of its own."""

    def ask() -> Mapping[str, Any]:
        for name in _modules(one):
            importlib.import_module(name)
        return {}

    trouble = isolated(ask, 300).get("trouble")
    if trouble is not None:
        yield _trouble(one, f"it cannot be imported: {trouble}")
