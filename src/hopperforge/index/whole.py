"""All files of an index that follow from its catalog: the one place where the makers of pages come together."""

from collections.abc import Callable, Mapping
from typing import Final

from hopperforge.index.catalog import Catalog
from hopperforge.index.constraints import constraint_files
from hopperforge.index.pages import simple_pages
from hopperforge.index.site import site_pages
from hopperforge.node.single_file import doctor_source

CATALOG_NAME: Final = "packages.json"
POOL: Final = "pool/"

DOCTOR_NAME: Final = "doctor.py"


def doctor_file(_: Catalog) -> Mapping[str, bytes]:
    """The program that nodes run to find their wheel; it reads the catalog by itself."""
    return {DOCTOR_NAME: doctor_source()}


MAKERS: Final[tuple[Callable[[Catalog], Mapping[str, bytes]], ...]] = (
    simple_pages,
    site_pages,
    constraint_files,
    doctor_file,
)
"""Each maps paths from the root of the index to bytes, and depends on nothing but the catalog and this hopperforge."""


def index_files(catalog: Catalog) -> Mapping[str, bytes]:
    """Make every file of an index but the pool and the catalog itself, by path from the root."""
    return {path: data for make in MAKERS for path, data in make(catalog).items()}


def content_type(path: str) -> str:
    """The type a server is to give a file of the index."""
    name = path.rpartition("/")[2]
    if name == "index.json" and "/simple/" in f"/{path}":
        return "application/vnd.pypi.simple.v1+json"
    known = {
        "html": "text/html; charset=utf-8",
        "json": "application/json",
        "metadata": "text/plain; charset=utf-8",
        "py": "text/x-python; charset=utf-8",
        "txt": "text/plain; charset=utf-8",
    }
    return known.get(name.rpartition(".")[2], "application/octet-stream")


def cache_control(path: str) -> str:
    """How long a file may be kept unasked: forever for what never changes under its name, else not at all."""
    lasting = path.startswith(POOL) and not path.endswith(".json")
    return "public, max-age=31536000, immutable" if lasting else "no-cache"
