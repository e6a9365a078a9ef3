"""The wheel under test. It is unpacked, never installed: the node stays as it was, and nothing else is imported."""

from __future__ import annotations

import hashlib
import importlib
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

FA3_HEAD_DIMS = (64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Wheel:
    """The file, and where it was unpacked."""

    path: Path
    sha256: str
    folder: Path


@dataclass(frozen=True)
class Build:
    """What a package says it was built of; `switches` are upstream's, DISABLE_X where X was trimmed."""

    profile: str
    cuda: str
    switches: frozenset[str]

    def has(self, feature: str) -> bool:
        """Whether a feature was compiled in."""
        return f"DISABLE_{feature}" not in self.switches


@dataclass(frozen=True)
class WheelUnderTest:
    """A wheel and its build. Each recipe's Subject adds what its tests call."""

    wheel: Wheel
    build: Build


@dataclass(frozen=True)
class Fa3UnderTest(WheelUnderTest):
    """One of FlashAttention-3's kernels, which a profile has or has not."""

    def has(self, feature: str) -> bool:
        """Whether a feature was compiled in."""
        return self.build.has(feature)

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Head dims with kernels of their own."""
        return tuple(dim for dim in FA3_HEAD_DIMS if self.has(f"HDIM{dim}"))

    @property
    def head_dim(self) -> int:
        """One head dim for the tests that need only one: 128 where it was compiled."""
        return 128 if 128 in self.head_dims else self.head_dims[0]

    def served(self, plain: Any, trimmable: Mapping[str, Any]) -> tuple[Any, ...]:
        """The one that every profile serves, and those whose feature was compiled in."""
        return (plain, *(value for feature, value in trimmable.items() if self.has(feature)))

    def parameters(self, dtypes: tuple[Any, ...]) -> dict[str, list[Any]]:
        """What tests over `head_dim`, `dtype` and `switch` are spread over."""
        between = self.head_dims[0] - 16  # no kernel of its own: the next larger one serves it
        return {
            "head_dim": [between, *self.head_dims],
            "dtype": [*dtypes],
            "switch": sorted(self.build.switches) or ["none"],
        }


def unpack(path: Path, folder: Path) -> Wheel:
    """Unpack a wheel. Raises BadZipFile."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return Wheel(path, hashlib.sha256(path.read_bytes()).hexdigest(), folder)


def import_from(wheel: Wheel, name: str) -> ModuleType:
    """Import a package of the wheel. Raises ImportError, also where another one of that name was imported before."""
    if str(wheel.folder) not in sys.path:
        sys.path.insert(0, str(wheel.folder))
    package = importlib.import_module(name)
    if not str(package.__file__).startswith(str(wheel.folder)):
        raise ImportError(f"{name} comes from {package.__file__}, not from {wheel.path}: run the kit in a fresh Python")
    return package


def read_build(module: ModuleType) -> Build:
    """What a Python package's `_build` says."""
    return Build(profile=module.PROFILE, cuda=module.CUDA, switches=frozenset(module.SWITCHES))
