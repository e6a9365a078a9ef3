"""What exactly a cell gets, with hashes: constraint files of an index, and what a bundle holds. Pure functions.

A cell here is a CUDA of the user's torch and a torch line; every Python that the wheel is for shares it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from packaging.version import Version

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.pages import shelves, shelves_of
from hopperforge.model.versions import CudaVersion, TorchVersion

CONSTRAINTS_NAME: Final = "constraints.txt"


def wheels_for(
    entries: Iterable[Entry], cuda: CudaVersion, torch: TorchVersion, profile: str | None
) -> Sequence[Entry]:
    """The files of the highest version that serves a cell, of a profile, None being the default one; none if none does.

    It is what an installer would take from the cell's page: of several files, those for other machines.
    """
    serving = [entry for entry in entries if f"{cuda.label}/torch{torch}{_suffix(entry)}" in shelves_of(entry, [cuda])]
    return _highest(entry for entry in serving if (entry.default if profile is None else entry.profile == profile))


def profiles_for(entries: Iterable[Entry], cuda: CudaVersion, torch: TorchVersion) -> tuple[str, ...]:
    """The profiles of which something serves a cell."""
    found = list(entries)
    profiles = sorted({entry.profile for entry in found})
    return tuple(profile for profile in profiles if wheels_for(found, cuda, torch, profile))


def _suffix(entry: Entry) -> str:
    return "" if entry.default else f"/{entry.profile}"


def _highest(entries: Iterable[Entry]) -> Sequence[Entry]:
    """Those of the highest version of their project, of the ones that were not yanked."""
    standing = [entry for entry in entries if entry.yanked is None]
    best: dict[str, Version] = {}
    for entry in standing:
        best[entry.project] = max(Version(entry.version), best.get(entry.project, Version(entry.version)))
    return [entry for entry in standing if Version(entry.version) == best[entry.project]]


def constraint_lines(files: Iterable[tuple[str, str, str]]) -> str:
    """Write lines of a requirements or constraints file from (project, version, sha256), each version once."""
    hashes: dict[tuple[str, str], set[str]] = {}
    for project, version, sha256 in files:
        hashes.setdefault((project, version), set()).add(sha256)
    lines = []
    for (project, version), found in sorted(hashes.items()):
        lines.append(" \\\n    ".join([f"{project}=={version}", *(f"--hash=sha256:{one}" for one in sorted(found))]))
    return "".join(f"{line}\n" for line in lines)


def constraint_files(catalog: Catalog) -> Mapping[str, bytes]:
    """Write the constraint file of every cell beside its simple pages: cu128/torch2.9/constraints.txt.

    It is there though every package of the page was yanked: nothing removes files of an index, and what stood in it
    before must not go on standing.
    """
    files = {}
    for shelf, entries in shelves(catalog).items():
        cuda, _, torch = shelf.partition("/torch")
        highest = _highest(entries)
        if torch:
            head = f"# For torch {torch.partition('/')[0]} of {cuda}; with -r and --no-deps, or with -c.\n"
            body = constraint_lines((entry.project, entry.version, entry.sha256) for entry in highest)
            files[f"{shelf}/{CONSTRAINTS_NAME}"] = (
                head + (body or "# Every package of this page was yanked.\n")
            ).encode()
    return files
