"""Whom a package serves, as the page for people says it: by its metadata, as installers judge, not by its cells alone.

A build of the stable ABI serves torches and Pythons that nobody named when it was built; what it asks of them is in its
metadata. Which CUDAs it serves is the rule of the simple pages.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.pages import EVERYTHING, cudas_of, shelves_of
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion

# What users may have, whether a package of the catalog names it or not: those of matrix.yaml, as a test sees to.
TORCHES: Final = tuple(f"2.{minor}" for minor in range(5, 16))
PYTHONS: Final = tuple(f"3.{minor}" for minor in range(9, 15))

# By machine code, and by PTX, which also runs where machine code is but is there for what came later.
GPUS: Final[Mapping[str, str]] = {
    "sm_70": "V100",
    "sm_75": "T4",
    "sm_80": "A100",
    "sm_86": "A10, RTX 3090",
    "sm_89": "L4, RTX 4090",
    "sm_90": "H100, H200",
    "sm_90a": "H100, H200",
    "compute_90": "newer than H200",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Every CUDA, torch and Python that users of a catalog may have, in order."""

    cudas: tuple[CudaVersion, ...]
    torches: tuple[str, ...]
    pythons: tuple[str, ...]

    @classmethod
    def of(cls, catalog: Catalog) -> "Choices":
        """Put together what is known and what the packages name; ValueError for a version that is none."""
        cells = [cell for entry in catalog.packages for cell in entry.cells]
        torches = {TorchVersion.parse(text) for text in (*TORCHES, *(cell.torch for cell in cells if cell.torch))}
        pythons = {PythonVersion.parse(text) for text in (*PYTHONS, *(cell.python for cell in cells if cell.python))}
        return cls(
            cudas=cudas_of(catalog),
            torches=tuple(map(str, sorted(torches))),
            pythons=tuple(map(str, sorted(pythons))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Whom one package serves; each in the order of the choices."""

    cudas: tuple[str, ...]
    torches: tuple[str, ...]
    pythons: tuple[str, ...]
    gpus: tuple[str, ...]


def served_by(entry: Entry, choices: Choices) -> Served:
    """Say whom a package serves: what its metadata allows, and the cells it was built for in any case.

    One that binds to no torch and requires none serves whoever has any, or none; without machine code, every GPU.
    """
    listed = [cuda for cuda in choices.cudas if any(shelf != EVERYTHING for shelf in shelves_of(entry, (cuda,)))]
    torches = {cell.torch for cell in entry.cells} | _allowed(_torch_specifier(entry.torch), choices.torches)
    pythons = {cell.python for cell in entry.cells} | _allowed(entry.requires_python, choices.pythons)
    return Served(
        cudas=tuple(map(str, listed)),
        torches=tuple(one for one in choices.torches if one in torches or entry.torch_free),
        pythons=tuple(one for one in choices.pythons if one in pythons),
        gpus=tuple(dict.fromkeys(GPUS.get(code, code) for code in sorted(entry.architectures or GPUS, reverse=True))),
    )


@functools.cache
def _allowed(specifier: str | None, lines: tuple[str, ...]) -> frozenset[str]:
    """Choose the versions that a specifier of the metadata lets in; nothing where there is none that can be read."""
    try:
        read = SpecifierSet(specifier or "")
    except InvalidSpecifier:
        return frozenset()  # then the cells alone speak
    return frozenset(line for line in lines if specifier and read.contains(f"{line}.0"))


@functools.cache
def _torch_specifier(requirement: str | None) -> str | None:
    try:
        return None if requirement is None else str(Requirement(requirement).specifier)
    except InvalidRequirement:
        return None


def ranges(values: Iterable[str], known: Sequence[str]) -> str:
    """Write values short, where `known` are all there are, in order: "2.9 to 2.11, 2.15"."""
    places = sorted(known.index(value) for value in set(values))
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(_run([known[place] for place in run]) for run in runs)


def _run(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
