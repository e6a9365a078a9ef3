"""Whether the torch found is one this build was made for, decided over plain values; needs no torch.

    abi        takes torch                     C++ ABI        torch's CUDA
    stable     the one named here or newer     any            any
    per-torch  the release line named here     the build's    the build's major version

A build per torch calls torch's C++ functions, whose names carry the C++ ABI, and reads structures that change with
CUDA's major version: with another torch it would not load, or would read them wrongly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Binding:
    """What the compiled module was bound against: torch and its C++ ABI, the CUDA toolkit, and how tightly."""

    version: str
    torch: str
    per_torch: bool
    cuda: str
    cxx11_abi: bool

    @property
    def needed(self) -> str:
        """What must be installed, in words."""
        which = f"{self.torch} for CUDA {_major(self.cuda)}" if self.per_torch else f"{self.torch} or newer"
        return f"a CUDA build of torch {which}"

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        requirement = f"torch=={self.torch}.*" if self.per_torch else f"torch>={self.torch}"
        return f'pip install "{requirement}"'


@dataclass(frozen=True)
class Found:
    """The torch found: its version, the CUDA it was built for (None: none), and whether it has the C++11 ABI."""

    version: str
    cuda: str | None
    cxx11_abi: bool


def mismatch(binding: Binding, found: Found) -> str | None:
    """Say in one sentence why a torch does not fit; None if it does, or if only loading the module can tell."""
    needs = f"fa3-fwd {binding.version} needs {binding.needed} and found torch {found.version}"
    release, wanted = _release(found.version), _release(binding.torch)
    if release != wanted if binding.per_torch else release < wanted:
        return f"{needs}: {binding.remedy}"
    if not binding.per_torch or found.cuda is None:
        return None
    if _major(found.cuda) != _major(binding.cuda):
        return f"{needs}, built for CUDA {found.cuda}: install torch {binding.torch} for CUDA {_major(binding.cuda)}"
    if found.cxx11_abi != binding.cxx11_abi:
        other = f"{_abi(found.cxx11_abi)} and not {_abi(binding.cxx11_abi)}"
        return f"{needs}, which has {other}: install torch {binding.torch} from the Python package index"
    return None


def _release(version: str) -> tuple[int, ...]:
    """Major and minor of a version: `2.11.0a0+cu130` -> (2, 11)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _major(cuda: str) -> str:
    return cuda.partition(".")[0]


def _abi(cxx11: bool) -> str:
    return "the C++11 ABI" if cxx11 else "the C++ ABI from before C++11"
