"""Debian packages from the mirrors this machine's apt is set up for, so that no mirror is named in the project.

A package is taken by its path in the mirrors' common pool and known by its sha256. So it need not be of the release
that runs here, no list of packages is read, nothing is installed, and apt needs neither root nor a signature.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.toolkit import DebianPackage, PinnedFile
from hopperforge.run.download import download, without_credentials
from hopperforge.run.files import make_folder, sha256_file
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace

MIRROR_VARIABLE: Final = "HOPPERFORGE_DEBIAN_MIRROR"

_HELPER_FOLDER: Final = "/usr/lib/apt"  # where every Debian keeps it, and PATH does not lead
_INDEX: Final = re.compile(r"'(?P<mirror>[^']+?)/dists/[^']+' .*")
_LIST: Final = "mirror+file:"
_FAILURE: Final = re.compile(r"E: Failed to fetch \S+ +(?P<reason>.+)")


def fetch_debian(package: DebianPackage, folder: Path, workspace: Workspace) -> Path:
    """Put a package into `folder`, from the first mirror that has it; it is large, so nothing of it is cached.

    HOPPERFORGE_DEBIAN_MIRROR names a mirror to use in place of apt's, and then apt is not needed. ToolError if there
    is neither apt nor such a mirror, or no mirror has the package; SourceError for content with another sha256.
    """
    final = make_folder(folder) / package.filename
    path = quote(package.pool, safe="/~+")
    if mirror := workspace.environ.get(MIRROR_VARIABLE):
        file = PinnedFile(project="", filename=package.filename, sha256=package.sha256)
        download(f"{mirror.rstrip('/')}/{path}", file, final, workspace)
        return final
    apt, helper = (_program(name, package, workspace) for name in ("apt-get", "apt-helper"))
    problems: list[str] = []
    for mirror in _mirrors(apt, workspace):
        problem = _download(helper, f"{mirror}/{path}", final, workspace)
        if problem is None:
            return _verified(package, final, mirror)
        problems.append(f"{without_credentials(mirror)}: {problem}")
    raise ToolError(
        f"{package.filename} cannot be fetched: no Debian mirror of this machine's apt has it",
        detail=problems or ["apt's sources name no mirror with packages of a Debian release"],
        hint=f"export {MIRROR_VARIABLE}=ADDRESS   # the folder of a Debian mirror that has dists/ and pool/",
    )


def parse_mirrors(lines: list[str]) -> tuple[str, ...]:
    """Read mirrors from what `apt-get --print-uris update` prints, in apt's order, each once."""
    found = (match["mirror"].rstrip("/") for line in lines if (match := _INDEX.fullmatch(line)))
    return tuple(dict.fromkeys(found))


def _mirrors(apt: Path, workspace: Workspace) -> Iterator[str]:
    lines: list[str] = []
    env = {**workspace.environ, "LC_ALL": "C"}
    done = run([apt, "--print-uris", "update"], cwd=make_folder(workspace.cache), env=env, on_line=lines.append)
    if done.status != 0:
        message = "apt does not say which mirrors it uses"
        raise ToolError(message, detail=done.tail[-5:], hint="apt-get --print-uris update")
    for mirror in parse_mirrors(lines):
        if mirror.startswith(_LIST):  # a file with a mirror in each line, which apt-helper does not read
            yield from _listed(Path(mirror.removeprefix(_LIST)))
        else:
            yield mirror


def _listed(path: Path) -> Iterator[str]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line.split()[0].rstrip("/")


def _program(name: str, package: DebianPackage, workspace: Workspace) -> Path:
    path = workspace.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=f"{path}{os.pathsep}{_HELPER_FOLDER}")
    if found is None:
        raise ToolError(
            f"{package.filename} cannot be fetched: {name} is not on this machine, so it has no Debian mirror",
            hint=f"export {MIRROR_VARIABLE}=ADDRESS   # the folder of a Debian mirror that has dists/ and pool/",
        )
    return Path(found)


def _download(helper: Path, address: str, final: Path, workspace: Workspace) -> str | None:
    """Have apt fetch an address, with its own settings of proxies and credentials; what went wrong, or None."""
    note = workspace.reporter.note
    lines: list[str] = []
    done = run(
        [helper, "download-file", address, final],
        cwd=final.parent,
        env={**workspace.environ, "LC_ALL": "C"},
        on_line=lines.append,
        on_heartbeat=lambda seconds: note(f"fetching {final.name}: {seconds:.0f} s"),
    )
    if done.status == 0 and final.is_file():
        note(f"fetched {final.name}: {final.stat().st_size / 1e6:.1f} MB in {done.seconds:.1f} s")
        return None
    reasons = [match["reason"] for line in lines if (match := _FAILURE.match(line))]
    return reasons[0] if reasons else f"apt-helper ended with status {done.status}"


def _verified(package: DebianPackage, final: Path, mirror: str) -> Path:
    found = sha256_file(final)
    if found != package.sha256:
        final.unlink()
        raise SourceError(
            f"{package.filename} is not the file that is pinned: its sha256 differs; nothing of it was kept",
            detail=[f"pinned: sha256 {package.sha256}", f"{without_credentials(mirror)}: served sha256 {found}"],
        )
    return final
