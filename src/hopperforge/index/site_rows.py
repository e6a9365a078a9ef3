"""What the page for people shows of one package, as text that a template only has to place."""

import functools
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from markupsafe import Markup
from packaging.version import Version

from hopperforge.index.catalog import Catalog, Entry, EntryGate, GpuProof
from hopperforge.index.commands import Installation, installation, page_folder
from hopperforge.index.pages import RECORD_SUFFIX, SIGNATURE_SUFFIX
from hopperforge.index.served import Choices, Served, ranges, served_by
from hopperforge.model.cell import ANY_PLATFORM, AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion

ANY: Final = "any, or none"
PLACEHOLDER: Final = "https://THIS-INDEX"
"""The address of the index in every command: the page's script puts its own in place of it, a reader by hand."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MANYLINUX: Final = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
_LEGACY: Final = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_STEP: Final = 100
_SHAPE: Final = re.compile(r"batch (\d+) seqlen (\d+) (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One speed: what ran, TFLOP/s in text, and how long its bar is, in percent of the scale."""

    label: str
    tflops: str
    width: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The smoke tests on a GPU; `common` is what all bars have in common, `best` the longest of them."""

    facts: GpuProof
    common: str
    bars: tuple[Bar, ...]
    best: Bar | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One package; `anchor` is its address on the page."""

    entry: Entry
    anchor: str
    served: Served
    cuda: str
    torch: str
    python: str
    machines: tuple[str, ...]
    glibc: str
    size: str
    library_size: str
    failed: tuple[str, ...]
    proof: Proof | None
    href: str
    record: str
    signature: str
    tarball: str
    commands: Installation
    shelves: Markup
    gates: Markup
    cells: str

    @property
    def quoted_file(self) -> str:
        """The file's name as a word of a shell."""
        return shlex.quote(self.entry.file)

    @property
    def passed(self) -> int:
        """How many gates were passed."""
        return len(self.entry.gates) - len(self.failed)


def make_rows(catalog: Catalog, choices: Choices) -> tuple[Row, ...]:
    """Make the rows in the order of the catalog."""
    scale = scale_of(catalog)
    return tuple(_row(entry, choices, scale) for entry in catalog.packages)


def _row(entry: Entry, choices: Choices, scale: int) -> Row:
    served = served_by(entry, choices)
    tags = [_platform(tag) for tag in entry.platform_tags]
    href = quote(entry.path)
    return Row(
        entry=entry,
        anchor=anchor_of(entry),
        served=served,
        cuda=ranges(served.cudas, [str(cuda) for cuda in choices.cudas]),
        torch=ANY if entry.torch_free else ranges(served.torches, choices.torches),
        python=ranges(served.pythons, choices.pythons),
        machines=tuple(sorted({machine for _, machine in tags})),
        glibc=_floor(floor for floor, _ in tags),
        size=megabytes(entry.size),
        library_size=megabytes(entry.library_size) if entry.library_size else "none",
        failed=tuple(gate.name for gate in entry.gates if not gate.passed),
        proof=None if entry.gpu is None else _proof(entry.gpu, scale),
        href=href,
        record=href + RECORD_SUFFIX,
        signature=href + SIGNATURE_SUFFIX if entry.attested else "",
        tarball=quote(f"{entry.path.rpartition('/')[0]}/{entry.tarball}") if entry.tarball else "",
        commands=_commands(entry),
        shelves=_shelves(entry, served),
        gates=_gate_items(entry.gates),
        cells=_cells(entry),
    )


def anchor_of(entry: Entry) -> str:
    """Name a package on the page: by its bytes, so that the address holds as long as they do."""
    known = _SHA256.fullmatch(entry.sha256) is not None
    return f"sha256-{entry.sha256[:16]}" if known else f"file-{quote(entry.file, safe='')}"


def _commands(entry: Entry) -> Installation:
    """Make the lines that name the file itself: these alone are shown, and are the same for every CUDA and torch."""
    return installation(entry, PLACEHOLDER, entry.cuda, TorchVersion(0, 0))


def _shelves(entry: Entry, served: Served) -> Markup:
    """Link the narrowest page for each CUDA; a build for one torch has one torch."""
    torch = TorchVersion.parse(served.torches[0]) if served.torches else TorchVersion(0, 0)
    return _shelf_links(tuple(page_folder(entry, _cuda(cuda), torch) for cuda in served.cudas))


# Thousands of packages share a few of each of these.
_cuda = functools.cache(CudaVersion.parse)


@functools.cache
def _shelf_links(folders: tuple[str, ...]) -> Markup:
    link = Markup('<a href="{}/simple/">{}</a>')
    return Markup(", ").join(link.format(quote(folder), folder) for folder in folders)


@functools.cache
def _gate_items(gates: tuple[EntryGate, ...]) -> Markup:
    item = Markup('<li class="{1}">{0}<span class="hidden">: {1}</span></li>')
    items = Markup().join(item.format(gate.name, "passed" if gate.passed else "failed") for gate in gates)
    return items or Markup('<li class="failed">no gate was run</li>')


def megabytes(size: int) -> str:
    """Write a size as people compare it: three digits, and never less than 0.01 MB."""
    value = max(size / 1e6, 0.01)
    digits = max(0, 2 - int(math.log10(max(value, 1))))
    return f"{value:.{digits}f} MB"


def _platform(tag: str) -> tuple[tuple[int, int] | None, str]:
    """Read the oldest glibc and the machine from a platform tag; None where it promises none."""
    found = _MANYLINUX.fullmatch(tag)
    if found:
        return (int(found[1]), int(found[2])), found[3]
    if tag == ANY_PLATFORM:
        return None, ANY_PLATFORM
    name, _, machine = tag.partition("_")
    return _LEGACY.get(name), machine


def _floor(floors: Iterable[tuple[int, int] | None]) -> str:
    known = [floor for floor in floors if floor is not None]
    return ".".join(map(str, min(known))) if known else ""


def _cells(entry: Entry) -> str:
    """Write the cells of the record: each torch with its CUDA, then the Pythons."""
    if entry.cells and entry.requires and entry.torch_free:
        return f"{', '.join(entry.requires)}, in any Python"
    if not entry.cells:
        return "none"
    if entry.torch_free:
        return "any torch and Python, or none"
    if entry.abi is AbiClass.NONE:
        return f"{entry.torch}, any Python and any CUDA"
    torches = dict.fromkeys(f"{cell.torch} (CUDA {cell.runtime})" for cell in entry.cells)
    pythons = dict.fromkeys(str(cell.python) for cell in entry.cells)
    return f"torch {', '.join(torches)}; Python {', '.join(pythons)}"


def scale_of(catalog: Catalog) -> int:
    """Choose the TFLOP/s that the longest bar can show, the same for all so that they compare."""
    speeds = (speed.tflops for entry in catalog.packages if entry.gpu for speed in entry.gpu.speeds)
    return max(_STEP, math.ceil(max(speeds, default=0) / _STEP) * _STEP)


def _proof(facts: GpuProof, scale: int) -> Proof:
    shapes = [_shape(speed.shape) for speed in facts.speeds]
    commons = {common for _, common in shapes}
    shared = len(commons) == 1
    labels = [label if shared or not common else f"{label}, {common}" for label, common in shapes]
    bars = tuple(
        Bar(label=label, tflops=f"{speed.tflops:.0f}", width=f"{100 * speed.tflops / scale:.1f}")
        for label, speed in zip(labels, facts.speeds, strict=True)
    )
    return Proof(
        facts=facts,
        common=commons.pop() if shared else "",
        bars=bars,
        best=max(bars, key=lambda bar: float(bar.width), default=None),
    )


def _shape(text: str) -> tuple[str, str]:
    """Divide a shape into what tells it from others and what is mostly the same: "4 x 4096, causal", "heads 16"."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return text, ""
    words = found[3].split(" ")
    causal = ", causal" if "causal" in words else ""
    return f"{found[1]} \u00d7 {found[2]}{causal}", " ".join(word for word in words if word != "causal")


def best_first(rows: Sequence[Row]) -> list[Row]:
    """Order rows as they are to be offered; what was withdrawn is not. The same order as the doctor's."""
    return sorted((row for row in rows if row.entry.yanked is None), key=_rank, reverse=True)


def _rank(row: Row) -> tuple[bool, Version, CudaVersion, bool, bool, str]:
    entry = row.entry
    public = Version(Version(entry.version).public)
    cuda = entry.cuda or CudaVersion(0, 0)
    return not entry.unproven, public, cuda, entry.gpu is not None, entry.abi is AbiClass.STABLE, entry.file
