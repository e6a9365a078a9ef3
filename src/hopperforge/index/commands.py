"""The lines that install one package of an index, for pip and for uv: the only place that makes them.

Two ways, both held to the file's sha256 and both without dependencies, for torch is there already and decides which
file is right:

- `pip` and `uv` name the file itself. No index is asked, so no package of the same name on any other index, however
  high its version and whatever pip's or uv's settings say, can come in its place. This is what to show first.
- `pip_by_page` and `uv_by_page` name the one page that lists the package, and its exact version. No index is asked
  here either; a place that the machine's settings name as find-links is, and the hash keeps its files out. This is for
  mirrors and upload servers, whose files have other addresses. It names index.html in full, which a bucket without a
  web server before it has too.

`--index-url` is in none of them, for pip goes on to ask the extra indexes of its settings, and `--extra-index-url`
least of all: with either, pip takes the highest version of a name from anywhere.
"""

import shlex
from dataclasses import dataclass
from urllib.parse import quote

from hopperforge.index.catalog import Entry
from hopperforge.index.pages import EVERYTHING
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """How to install one package; `pip` ... `uv_by_page` are lines for a shell.

    `url` is the file with its sha256; `index` is the address of the simple index that lists it, and `page` its page
    there; `direct` and `pinned` are lines of a requirements file for the two ways.
    """

    url: str
    index: str
    page: str
    direct: str
    pinned: str
    pip: str
    uv: str
    pip_by_page: str
    uv_by_page: str


def installation(entry: Entry, index: str, cuda: CudaVersion | None, torch: TorchVersion) -> Installation:
    """Make the lines for a machine whose torch is `torch`, built for `cuda`, from the index at the URL `index`.

    The page is that of this CUDA (and torch, and profile, where the file depends on them); whether the package serves
    the machine at all is the caller's question.
    """
    root = index.rstrip("/")
    url = f"{root}/{quote(entry.path)}#sha256={entry.sha256}"
    simple = f"{root}/{page_folder(entry, cuda, torch)}/simple/"
    return _lines(entry, url=url, index=simple, page=f"{simple}{entry.project}/index.html")


def installation_from_server(entry: Entry, file: str, index: str) -> Installation:
    """Make the lines for an upload server, where the file is at the URL `file` and the simple index at `index`."""
    simple = index.rstrip("/") + "/"
    url = f"{file.partition('#')[0]}#sha256={entry.sha256}"
    return _lines(entry, url=url, index=simple, page=f"{simple}{entry.project}/")


def page_folder(entry: Entry, cuda: CudaVersion | None, torch: TorchVersion) -> str:
    """Name the folder of the narrowest page that lists the package: cu128, cu128/torch2.6, cu128/torch2.6/full.

    Of what nothing compiled that is `all`: every file of its project is for every CUDA.
    """
    if entry.cuda is None or cuda is None:
        return EVERYTHING
    per_torch = [f"torch{torch}"] if entry.abi is AbiClass.PER_TORCH else []
    profile = [] if entry.default else [entry.profile]
    return "/".join([cuda.label, *per_torch, *profile])


def _lines(entry: Entry, *, url: str, index: str, page: str) -> Installation:
    direct = f"{entry.project} @ {url}"
    pinned = f"{entry.project}=={entry.version} --hash=sha256:{entry.sha256}"
    held = f"--no-deps --no-index --find-links {shlex.quote(page)} --require-hashes -r /dev/stdin"
    return Installation(
        url=url,
        index=index,
        page=page,
        direct=direct,
        pinned=pinned,
        pip=f"pip install --no-deps {shlex.quote(direct)}",
        uv=f"uv pip install --no-deps {shlex.quote(direct)}",
        pip_by_page=f"echo {shlex.quote(pinned)} | pip install {held}",
        uv_by_page=f"echo {shlex.quote(pinned)} | uv pip install {held}",
    )
