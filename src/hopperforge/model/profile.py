"""Profiles: named sets of upstream feature switches, and what they leave in."""

from dataclasses import dataclass, replace
from typing import Final

HEAD_DIMS: Final = (64, 96, 128, 192, 256)


def compute_capability(architecture: str) -> int:
    """Give the number in the name of an architecture: 90 of sm_90a, 75 of compute_75."""
    return int(architecture.partition("_")[2].rstrip("af"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper bounds a package must keep, in bytes: the wheel and the shared library in it."""

    wheel: int
    library: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is compiled in.

    `switches` are upstream's names without prefix (DISABLE_PAGEDKV); `architectures` are what cuobjdump must
    find in the library (sm_80, sm_90a), and `ptx` what it must find PTX for (compute_90).
    """

    name: str
    summary: str
    switches: frozenset[str]
    architectures: frozenset[str]
    budget: Budget
    ptx: frozenset[str] = frozenset()

    def for_toolkit(self, oldest: int) -> "Profile":
        """Leave out the machine code that a toolkit no longer makes; `oldest` is the least it does (75 of sm_75)."""
        kept = frozenset(name for name in self.architectures if compute_capability(name) >= oldest)
        return replace(self, architectures=kept)

    def disables(self, feature: str) -> bool:
        """Whether `feature` (BACKWARD, HDIM64, ...) is switched off."""
        return f"DISABLE_{feature}" in self.switches

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Head dimensions compiled in; upstream rounds others up to the next of these."""
        return tuple(dim for dim in HEAD_DIMS if not self.disables(f"HDIM{dim}"))
