"""Which packages one flat index may hold: with one page for a project, as upload servers have, pip takes the highest.

The local label of a version says for whom a file is: `+cu124` for drivers of CUDA 12.4 and newer, `+cu124torch2.6` for
torch 2.6 as well, and the profile behind it where that is not the recipe's default. Two files for different machines on
one flat index means that one kind of machine gets the wrong one, so there is one such index for each kind.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from hopperforge.model.versions import CudaVersion, TorchVersion

_FOR_ALL: Final = "-py3-none-any.whl"
_LABEL: Final = re.compile(r"cu(\d{2})(\d{1,2})(?:torch(\d+)\.(\d+))?((?:\.[a-z0-9]+)*)")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Label:
    """A local label as it is read: the toolkit's CUDA, the torch of a per-torch build, and the profile's words."""

    cuda: CudaVersion
    torch: TorchVersion | None
    rest: tuple[str, ...]

    @classmethod
    def of_file(cls, name: str) -> Self | None:
        """Read the label in a wheel's file name; None for a file that is no wheel or has no label of ours."""
        try:
            version = parse_wheel_filename(name)[1]
        except (ValueError, InvalidVersion):
            return None
        return cls.of_version(version)

    @classmethod
    def of_version(cls, version: Version) -> Self | None:
        """Read the label of a version; None if it has none of ours."""
        match = _LABEL.fullmatch(version.local or "")
        if match is None:
            return None
        return cls(
            cuda=CudaVersion(int(match[1]), int(match[2])),
            torch=TorchVersion(int(match[3]), int(match[4])) if match[3] else None,
            rest=tuple(match[5].split(".")[1:]),
        )

    def __str__(self) -> str:
        torch = f"torch{self.torch}" if self.torch else ""
        return ".".join([f"{self.cuda.label}{torch}", *self.rest])


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """The machines an index is for: the CUDA of their torch, that torch, and a profile; None is "any" and "default"."""

    cuda: CudaVersion
    torch: TorchVersion | None = None
    profile: str | None = None

    def take(self, label: Label) -> bool:
        """Whether a file with this label runs on them, as the pages of an index have it.

        | label           | taken where                                                                    |
        |-----------------|--------------------------------------------------------------------------------|
        | any             | its profile is the one asked for, and its CUDA is not newer than the machines' |
        | of a torch      | that torch was asked for, and the CUDA is of the same major                    |
        """
        of_profile = label.rest == (tuple(self.profile.split("-")) if self.profile else ())
        of_torch = label.torch is None or (label.torch == self.torch and label.cuda.major == self.cuda.major)
        return of_profile and of_torch and label.cuda <= self.cuda

    def __str__(self) -> str:
        torch = f" torch={self.torch}" if self.torch else ""
        profile = f" profile={self.profile}" if self.profile else ""
        return f"cuda={self.cuda}{torch}{profile}"


def misfits(names: Iterable[str], machines: Machines | None) -> tuple[str, ...]:
    """Name the files of one project that may not lie on one flat index with the others, in order.

    For `machines`, those that are not theirs. Without, every file if the labels are not all the same: nobody said
    which of them is right. A project of Python alone has no labels and is for all; one such file among others is not,
    for pip could take it in their place.
    """
    labels = {name: Label.of_file(name) for name in names}
    if all(name.endswith(_FOR_ALL) for name in labels):
        return ()
    if machines is not None:
        return tuple(sorted(name for name, label in labels.items() if label is None or not machines.take(label)))
    return tuple(sorted(labels)) if len(set(labels.values())) > 1 else ()
