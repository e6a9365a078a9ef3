"""The licences a package must hand on: upstream's, NVIDIA's and our own, each as its owner wrote it.

None of them but our own is in this repository. Upstream's are pinned by sha256; NVIDIA's agreement is taken from the
pinned archive that the toolkit's runtime comes in, so that it is the same whoever installed the toolkit.
"""

import hashlib
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.toolkit import PinnedFile, Toolkit, ToolkitFact
from hopperforge.model.upstream import Licence, PatchedSource, UpstreamPin
from hopperforge.run.download import cached_path, fetch, fetch_address
from hopperforge.run.workspace import Workspace
from hopperforge.stages.toolkit_assembly import redist_archives

_OWN: Final = "LICENSE"
_RUNTIME: Final = re.compile(r"nvidia[-_]cuda[-_]runtime([-_]cu\d+)?")
_RUNTIME_COMPONENT: Final = "cuda_cudart"
_IN_WHEEL: Final = re.compile(r"[^/]+\.dist-info/(licenses/)?License\.txt", re.IGNORECASE)
_IN_ARCHIVE: Final = re.compile(r"[^/]+/LICENSE")


def collect_licences(
    source: PatchedSource, toolkit: Toolkit, fact: ToolkitFact, workspace: Workspace
) -> Mapping[str, bytes]:
    """Give every licence text by the name it has in a package.

    The names are those setuptools takes from beside setup.py without being told. SourceError if one is not the pinned
    text, ToolError if one cannot be fetched.
    """
    found = {_name(licence): _upstream(licence, source, workspace) for licence in source.pin.licences}
    found["LICENSE.cuda.txt"] = _nvidia(toolkit, fact, workspace)
    return dict(sorted({**found, **own_licence(workspace)}.items()))


def own_licence(workspace: Workspace) -> dict[str, bytes]:
    """Give our own licence text by the name it has in a package."""
    return {"LICENSE.hopperforge.txt": (workspace.project / _OWN).read_bytes()}


def licences_at_hand(pin: UpstreamPin, fact: ToolkitFact, workspace: Workspace) -> bool:
    """Whether `collect_licences` would fetch nothing, as far as can be told without hashing."""
    files = [licence.archive for licence in pin.licences if licence.archive is not None]
    files += [wheel for wheel in fact.wheels if _RUNTIME.fullmatch(wheel.project)]
    if fact.redist is not None and not fact.wheels:
        files.append(PinnedFile(project="", filename=fact.redist.name, sha256=fact.redist.sha256))
    return all(cached_path(file, workspace).is_file() for file in files)


def _name(licence: Licence) -> str:
    """LICENSE and AUTHORS are upstream's own; csrc/cutlass/LICENSE.txt is LICENSE.cutlass.txt."""
    path = Path(licence.path)
    return path.name if path.parent == Path() else f"{path.stem}.{path.parent.name}{path.suffix}"


def _upstream(licence: Licence, source: PatchedSource, workspace: Workspace) -> bytes:
    if licence.archive is not None:
        archive = fetch(licence.archive, workspace, unreachable=SourceError)
        top = licence.archive.filename.removesuffix(".tar.gz")
        data = _tar_member(archive, re.compile(re.escape(f"{top}/{licence.path}")))
    else:
        place = source.root / licence.path
        data = place.read_bytes() if place.is_file() else b""
    found = hashlib.sha256(data).hexdigest()
    if found != licence.sha256:
        raise SourceError(
            f"{licence.path} is not the licence that is pinned",
            detail=[f"pinned: sha256 {licence.sha256}", f"found:  sha256 {found}"],
            hint="look at `licences:` in flash-attention/upstream.yaml",
        )
    return data


def _nvidia(toolkit: Toolkit, fact: ToolkitFact, workspace: Workspace) -> bytes:
    """NVIDIA's agreement: from the pinned file of the runtime, else as the toolkit's own installer left it."""
    try:
        return _pinned_agreement(fact, workspace)
    except ToolError as error:
        beside = toolkit.root / "EULA.txt"
        if beside.is_file():
            return beside.read_bytes()
        raise ToolError(
            f"NVIDIA's licence of CUDA {fact.version} is not at hand, and a package must hand it on",
            detail=[error.sentence, *error.detail, f"{beside} is not there"],
            hint=error.hint,
        ) from error


def _pinned_agreement(fact: ToolkitFact, workspace: Workspace) -> bytes:
    for wheel in fact.wheels:
        if _RUNTIME.fullmatch(wheel.project):
            return _zip_member(fetch(wheel, workspace), _IN_WHEEL)
    if fact.redist is not None:
        manifest = fetch_address(fact.redist.manifest, fact.redist.sha256, workspace)
        for address, sha256 in redist_archives(fact.redist, manifest, [_RUNTIME_COMPONENT]):
            return _tar_member(fetch_address(address, sha256, workspace), _IN_ARCHIVE)
    raise ToolError(f"matrix.yaml names no file with the runtime of CUDA {fact.version}")


def _zip_member(path: Path, pattern: re.Pattern[str]) -> bytes:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if pattern.fullmatch(name):
                return archive.read(name)
    raise SourceError(f"{path.name} holds no licence", detail=[f"looked for {pattern.pattern}"])


def _tar_member(path: Path, pattern: re.Pattern[str]) -> bytes:
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if pattern.fullmatch(member.name) and member.isreg() else None
            if stream is not None:
                return stream.read()
    raise SourceError(f"{path.name} holds no licence", detail=[f"looked for {pattern.pattern}"])
