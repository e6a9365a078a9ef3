"""The lines that install one package of an index, for pip and for uv: the only place that makes them.

Two ways, both held to the file's sha256 and both without dependencies, for torch is there already and decides which
file is right:

- `pip` and `uv` name the file itself. No index is asked, so no package of the same name on any other index, however
  high its version and whatever pip's or uv's settings say, can come in its place. This is what to show first.
- `pip_by_page` and `uv_by_page` name a page of the index and the exact version. Other indexes of the machine's
  settings are still asked, and the hash keeps their files out. This is for mirrors and for upload servers, whose files
  have other addresses.

`--extra-index-url` is in none of them: with it pip takes the highest version of a name from anywhere.
"""

import shlex
from dataclasses import dataclass
from urllib.parse import quote

from hopperforge.index.catalog import Entry
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """How to install one package; `pip` ... `uv_by_page` are lines for a shell.

    `url` is the file with its sha256, `page` the index page that lists it; `direct` and `pinned` are lines of a
    requirements file for the two ways.
    """

    url: str
    page: str
    direct: str
    pinned: str
    pip: str
    uv: str
    pip_by_page: str
    uv_by_page: str


def installation(entry: Entry, index: str, cuda: CudaVersion, torch: TorchVersion) -> Installation:
    """Make the lines for a machine whose torch is `torch`, built for `cuda`, from the index at the URL `index`.

    The page is that of this CUDA (and torch, and profile, where the file depends on them); whether the package serves
    the machine at all is the caller's question.
    """
    root = index.rstrip("/")
    url = f"{root}/{quote(entry.path)}#sha256={entry.sha256}"
    return _lines(entry, url=url, page=f"{root}/{page_folder(entry, cuda, torch)}/simple/")


def installation_from_server(entry: Entry, file: str, page: str) -> Installation:
    """Make the lines for an upload server, where the file is at the URL `file` and its index at the URL `page`."""
    return _lines(entry, url=f"{file.partition('#')[0]}#sha256={entry.sha256}", page=page)


def page_folder(entry: Entry, cuda: CudaVersion, torch: TorchVersion) -> str:
    """Name the folder of the narrowest page that lists the package: cu128, cu128/torch2.6, cu128/torch2.6/full."""
    per_torch = [f"torch{torch}"] if entry.abi is AbiClass.PER_TORCH else []
    profile = [] if entry.default else [entry.profile]
    return "/".join([cuda.label, *per_torch, *profile])


def _lines(entry: Entry, *, url: str, page: str) -> Installation:
    direct = f"{entry.project} @ {url}"
    pinned = f"{entry.project}=={entry.version} --hash=sha256:{entry.sha256}"
    held = f"--no-deps --require-hashes {{}} {shlex.quote(page)} -r /dev/stdin"
    return Installation(
        url=url,
        page=page,
        direct=direct,
        pinned=pinned,
        pip=f"pip install --no-deps {shlex.quote(direct)}",
        uv=f"uv pip install --no-deps {shlex.quote(direct)}",
        pip_by_page=f"echo {shlex.quote(pinned)} | pip install {held.format('--index-url')}",
        uv_by_page=f"echo {shlex.quote(pinned)} | uv pip install {held.format('--index')}",
    )
