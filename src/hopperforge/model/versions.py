"""Versions of CUDA, torch and Python, as the matrix and the words of a request write them."""

import re
from dataclasses import dataclass
from typing import Self

from packaging.version import InvalidVersion, Version

_MAJOR_MINOR = re.compile(r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)")
_PTXAS = "+ptxas"


def _major_minor(text: str, what: str, example: str) -> tuple[int, int]:
    match = _MAJOR_MINOR.fullmatch(text)
    if match is None:
        message = f"{text!r} is not a {what} version; write it as {example}"
        raise ValueError(message)
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True, order=True)
class CudaVersion:
    """A CUDA release by major and minor, as in `cuda=13.0`."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "13.0"; ValueError otherwise."""
        return cls(*_major_minor(text, "CUDA", "13.0"))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def label(self) -> str:
        """The form used in local version labels and index paths: cu130."""
        return f"cu{self.major}{self.minor}"


@dataclass(frozen=True, slots=True, order=True)
class ToolkitVersion:
    """A CUDA toolkit by name, as in `cuda=13.0` or `cuda=12.4+ptxas12.9`.

    `cuda` is the release of nvcc, headers and runtime; `ptxas` the release its assembler is from, as a rule the same.
    Such a toolkit compiles for the drivers of `cuda`: what a user must match stays that, so its label is the plain
    toolkit's.
    """

    cuda: CudaVersion
    ptxas: CudaVersion

    @classmethod
    def of(cls, cuda: CudaVersion) -> Self:
        """Name the toolkit that has its own assembler."""
        return cls(cuda, cuda)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "13.0" or "12.4+ptxas12.9"; ValueError otherwise, and for an assembler that is not a newer one."""
        release, plus, assembler = text.partition(_PTXAS)
        cuda = CudaVersion.parse(release)
        if not plus:
            return cls.of(cuda)
        ptxas = CudaVersion.parse(assembler)
        if ptxas <= cuda:
            message = f"{text!r} names ptxas {ptxas}, which is not newer than the toolkit's own"
            raise ValueError(message)
        return cls(cuda, ptxas)

    def __str__(self) -> str:
        return str(self.cuda) if self.ptxas == self.cuda else f"{self.cuda}{_PTXAS}{self.ptxas}"

    @property
    def label(self) -> str:
        """The form used in local version labels and index paths: cu124, whatever the assembler."""
        return self.cuda.label


@dataclass(frozen=True, slots=True, order=True)
class PythonVersion:
    """A CPython release by major and minor, as in `python=3.12`."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3.12"; ValueError otherwise."""
        return cls(*_major_minor(text, "Python", "3.12"))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def tag(self) -> str:
        """The interpreter tag of wheel names: cp312."""
        return f"cp{self.major}{self.minor}"


@dataclass(frozen=True, slots=True, order=True)
class TorchVersion:
    """A torch release line by major and minor, as in `torch=2.11`; patch releases share an ABI."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2.11"; ValueError otherwise."""
        return cls(*_major_minor(text, "torch", "2.11"))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def release_version(text: str) -> Version:
    """Read a full release such as "2.11.0" or "13.0.88"; ValueError names what is wrong."""
    try:
        return Version(text)
    except InvalidVersion as error:
        message = f"{text!r} is not a version number"
        raise ValueError(message) from error
