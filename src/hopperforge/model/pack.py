"""Units of compilation and the kernel pack they make together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hopperforge.model.keys import content_key

PACK_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unit:
    """What one compile of a profile makes an object of: its path and nvcc's arguments (no input, no output).

    The path is that of a `.cu` file in the source tree. A merged unit is compiled from several of them, `merged`, and
    its own path names no file: see `hopperforge.merging`.

    `sees` is a hash over every file of the source that its compile can read; empty if that is not known, and then all
    of the source counts.
    """

    path: str
    arguments: tuple[str, ...]
    merged: tuple[str, ...] = ()
    sees: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The files of the source tree that are compiled, in order; at least one."""
        return self.merged or (self.path,)

    @property
    def name(self) -> str:
        """The file name without folder and suffix: flash_fwd_hdim128_bf16_sm90."""
        return Path(self.path).stem

    @property
    def gencodes(self) -> int:
        """How many GPU targets one compile of the unit makes; nvcc's own threads help only above one."""
        return sum(argument in ("-gencode", "--generate-code") for argument in self.arguments)


def unit_key(unit: Unit, *, kernel_tree: str, toolkit_key: str, compiler_key: str, image: str) -> str:
    """The key of a unit's object: everything that changes its bytes and nothing else.

    `kernel_tree` stands for the source where the unit does not say what it sees of it.
    """
    return content_key(
        "unit",
        {
            "path": unit.path,
            "arguments": unit.arguments,
            "source": unit.sees or kernel_tree,
            "toolkit": toolkit_key,
            "host_compiler": compiler_key,
            "image": image,
        },
    )


def pack_key(unit_keys: Mapping[str, str]) -> str:
    """The key of a pack from the keys of its units by path."""
    return content_key("pack", {"format": PACK_FORMAT, "units": sorted(unit_keys.values())})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What compiling a unit took: wall seconds, and peak resident bytes of the largest compiler process."""

    seconds: float
    peak_rss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """What a unit needs when its peak is over: so many seconds `after` its start, and `rss` bytes from then on."""

    after: float
    rss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedUnit:
    """One object of a pack: its unit's path and key, the object's sha256 and size, and what it cost (None: unknown).

    `merged` is that of the unit.
    """

    path: str
    key: str
    sha256: str
    size: int
    cost: Cost | None
    merged: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The files of the source tree that are in the object."""
        return self.merged or (self.path,)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPack:
    """The objects of one (pin, patches, profile, toolkit, host compiler); `archive` is the deterministic tar."""

    key: str
    sha256: str
    archive: Path
    units: tuple[PackedUnit, ...]
    compiled: int
