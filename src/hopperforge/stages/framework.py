"""Frameworks for a Python of elsewhere: installed by our pip into a folder that a container is shown.

Nothing of it runs here. What pip would choose in that Python is chosen here by what the Python says of itself.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hopperforge.model.keys import content_key
from hopperforge.model.versions import PythonVersion
from hopperforge.run.files import Lock, replace_folder, storage_guard, sweep, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import LEGACY_GLIBC, module
from hopperforge.stages.pip_run import pip_install, require_framework

# The oldest glibc of manylinux: 2.5 for x86_64, 2.17 for every machine that came later.
_OLDEST_MINOR: Final = {"x86_64": 5}
_OLDEST_MINOR_OTHERS: Final = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A CPython elsewhere, as it describes itself: `release` is the full version, `machine` its architecture."""

    release: str
    glibc: tuple[int, int]
    machine: str

    @property
    def python(self) -> PythonVersion:
        """The version that wheels are made for."""
        return PythonVersion.parse(".".join(self.release.split(".")[:2]))

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags its pip accepts, the newest glibc first."""
        major, newest = self.glibc
        oldest = _OLDEST_MINOR.get(self.machine, _OLDEST_MINOR_OTHERS)
        legacy = {glibc: name for name, glibc in LEGACY_GLIBC.items()}
        names: list[str] = []
        for minor in range(newest, oldest - 1, -1):
            names += [f"manylinux_{major}_{minor}", *filter(None, [legacy.get((major, minor))])]
        return tuple(f"{name}_{self.machine}" for name in (*names, "linux"))

    @property
    def environment(self) -> dict[str, str]:
        """What markers of requirements are judged by."""
        mine = {key: str(value) for key, value in default_environment().items()}
        theirs = {"python_version": str(self.python), "python_full_version": self.release}
        return mine | theirs | {"platform_machine": self.machine, "extra": ""}

    def __str__(self) -> str:
        return f"Python {self.release} with glibc {self.glibc[0]}.{self.glibc[1]}"


def framework_folder(target: Target, requirement: str, workspace: Workspace) -> Path:
    """Install `requirement` with all it requires for `target`, or find it installed before; returns the folder.

    ToolError if the index does not give it, StorageError if the disk is full.
    """
    folders = workspace.cache / "frameworks"
    facts = {"platforms": target.platforms, "python": target.release, "requirement": requirement}
    key = content_key("framework", facts)
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', requirement.rsplit('/', maxsplit=1)[-1])}-{target.python}-{key[:16]}"
    wait = partial(workspace.reporter.note, f"waiting for another run that installs {requirement} for {target}")
    with Lock(folders / f"{name}.lock", on_wait=wait):
        if not (folders / name).is_dir():
            sweep(folders, name)
            with storage_guard(folders), temporary_folder(folders, name) as folder:
                (folder / "site").mkdir()
                _fill(folder, target, requirement, workspace)
                replace_folder(folder / "site", folders / name)
    return folders / name


def _fill(folder: Path, target: Target, requirement: str, workspace: Workspace) -> None:
    """Install into `folder`/site: pip judges markers by the Python it runs in, so what they left out comes after."""
    workspace.reporter.note(f"installing {requirement} for {target} to import the package beside it")
    wanted: tuple[str, ...] = (requirement,)
    while wanted:
        _install(wanted, folder, target, workspace)
        wanted = unmet(_requirements(folder / "site"), target.environment)


def _install(wanted: tuple[str, ...], folder: Path, target: Target, workspace: Workspace) -> None:
    kind = ("--only-binary=:all:", "--implementation=cp", f"--python-version={target.release}")
    platforms = tuple(f"--platform={platform}" for platform in target.platforms)
    words = ("--no-compile", *kind, *platforms, f"--target={folder / 'site'}", *wanted)
    install = pip_install(module("pip"), *words, folder=folder, name="install-framework", workspace=workspace)
    require_framework(install, wanted=wanted, where=str(target))


def _requirements(site: Path) -> Mapping[str, tuple[str, ...]]:
    """Read what is installed in a folder, and what each distribution requires."""
    found = distributions(path=[str(site)])
    return {distribution.metadata["Name"]: tuple(distribution.requires or ()) for distribution in found}


def unmet(installed: Mapping[str, Iterable[str]], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Give what installed distributions require in `environment` and is not installed, without extras and markers."""
    names = {canonicalize_name(name) for name in installed}
    missing = set()
    for text in (text for texts in installed.values() for text in texts):
        requirement = Requirement(text)
        needed = requirement.marker is None or requirement.marker.evaluate(dict(environment))
        if needed and canonicalize_name(requirement.name) not in names:
            missing.add(f"{requirement.name}{requirement.specifier}")
    return tuple(sorted(missing))
