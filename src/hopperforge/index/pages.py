"""Which packages every simple page lists, and the pages' bytes: a pure function of the catalog.

A shelf is a folder of the index that has a `simple/` of its own, named by its path from the root:

| shelf                       | lists                                                                               |
|-----------------------------|-------------------------------------------------------------------------------------|
| all                         | everything                                                                          |
| cu130                       | builds of the stable ABI, or bound to no torch at all, of that CUDA or an older one |
| cu130/torch2.11             | those of them that serve that torch                                                 |
| cu128/torch2.6              | builds for that torch alone, of the same CUDA major and that CUDA or an older one   |
| cu130/hdim128-bf16          | as cu130, of a profile that is not the recipe's default, and so is on no page above |
| cu130/torch2.11/hdim128-bf16 | as cu130/torch2.11, of such a profile                                              |

What nothing compiled, a package of Python alone, is of every CUDA.

The CUDAs are those of the users' torches: every CUDA of a package's toolkit, or of a runtime of a cell that one serves.
Installers take the highest version whatever the machine, hence one address for each of these.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from packaging.version import Version

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.simple import FileLink, Page, PageWriter
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion

EVERYTHING: Final = "all"
RECORD_SUFFIX: Final = ".json"
METADATA_SUFFIX: Final = ".metadata"
SIGNATURE_SUFFIX: Final = ".dsse.json"

_SIMPLE_DEPTH: Final = 2  # a project's page is in simple/<project>/ of its shelf


def simple_pages(catalog: Catalog) -> Mapping[str, bytes]:
    """Write every simple page, by path from the root of the index; equal catalogs give equal bytes."""
    versions = {version: Version(version) for version in {entry.version for entry in catalog.packages}}
    writer = PageWriter()
    links = [_link(entry) for entry in catalog.packages]
    written: dict[tuple[str, tuple[int, ...], int], Page] = {}
    pages: dict[str, bytes] = {}
    for shelf, places in _shelved(catalog).items():
        depth = shelf.count("/") + 1 + _SIMPLE_DEPTH
        for project, members in _by_project(catalog, places):
            key = (project, members, depth)
            if key not in written:  # most shelves of one depth list the same
                listed = [links[place] for place in members]
                ordered = sorted({link.version for link in listed}, key=lambda text: (versions[text], text))
                written[key] = writer.project(project, listed, ordered, depth)
            pages |= _in_both_forms(f"{shelf}/simple/{project}", written[key])
        projects = {catalog.packages[place].project for place in places}
        pages |= _in_both_forms(f"{shelf}/simple", writer.projects(projects))
    return pages


def shelves(catalog: Catalog) -> Mapping[str, tuple[Entry, ...]]:
    """List every shelf with its packages, in the catalog's order."""
    return {shelf: tuple(catalog.packages[place] for place in places) for shelf, places in _shelved(catalog).items()}


def cudas_of(catalog: Catalog) -> tuple[CudaVersion, ...]:
    """Every CUDA that has a shelf, in order."""
    toolkits = {entry.cuda for entry in catalog.packages if entry.cuda is not None}
    runtimes = {cell.runtime for entry in catalog.packages for cell in entry.cells if cell.runtime is not None}
    return tuple(sorted({*toolkits, *map(CudaVersion.parse, runtimes)}))


def shelves_of(entry: Entry, cudas: Iterable[CudaVersion]) -> Iterator[str]:
    """Name the shelves that list a package, where `cudas` have shelves; the table above says why."""
    yield EVERYTHING
    toolkit = entry.cuda
    profile = "" if entry.default else f"/{entry.profile}"
    torches = dict.fromkeys(cell.torch for cell in entry.cells if cell.torch is not None)
    for cuda in cudas:
        if toolkit is not None and (
            toolkit > cuda or (entry.abi is AbiClass.PER_TORCH and toolkit.major != cuda.major)
        ):
            continue
        if entry.abi is not AbiClass.PER_TORCH:
            yield f"{cuda.label}{profile}"
        for torch in torches:
            yield f"{cuda.label}/torch{torch}{profile}"


def _shelved(catalog: Catalog) -> dict[str, list[int]]:
    """List every shelf with the places of its packages in the catalog."""
    cudas = cudas_of(catalog)
    found: dict[str, list[int]] = {EVERYTHING: []}
    for place, entry in enumerate(catalog.packages):
        for shelf in shelves_of(entry, cudas):
            found.setdefault(shelf, []).append(place)
    return dict(sorted(found.items()))


def _by_project(catalog: Catalog, places: Iterable[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    groups: dict[str, list[int]] = {}
    for place in places:
        groups.setdefault(catalog.packages[place].project, []).append(place)
    for project, members in groups.items():
        yield project, tuple(members)


def _in_both_forms(folder: str, page: Page) -> dict[str, bytes]:
    return {f"{folder}/index.html": page.html, f"{folder}/index.json": page.json}


def _link(entry: Entry) -> FileLink:
    return FileLink(
        file=entry.file,
        version=entry.version,
        path=entry.path,
        sha256=entry.sha256,
        size=entry.size,
        requires_python=entry.requires_python,
        metadata_sha256=entry.metadata_sha256,
        uploaded=entry.uploaded,
        yanked=entry.yanked,
        record=entry.path + RECORD_SUFFIX,
        signature=entry.path + SIGNATURE_SUFFIX if entry.attested else None,
    )
