"""The tarball of a package: its folder as a `.tar.zst` that can be unpacked anywhere, with the wheel's own bytes.

The linker's name of the library, a script in the wheel, is the usual link here. Equal wheels give equal tarballs.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import zstandard

from hopperforge.model.front import Front
from hopperforge.model.wheel import RepairedWheel, Tarball
from hopperforge.run.files import make_folder, sha256_file, storage_guard, writing
from hopperforge.run.workspace import Workspace
from hopperforge.stages.front_inputs import FrontInputs
from hopperforge.stages.front_layout import linker_places
from hopperforge.stages.gates import gate, refuse_if
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel

SUFFIX: Final = ".tar.zst"
_LEVEL: Final = 10  # above it a large library takes minutes, for some percent
_READABLE: Final = 0o644
_RUNNABLE: Final = 0o755
_LICENCES: Final = "share/licenses"
_BILLS: Final = "share/sboms"


def make_tarball(repaired: RepairedWheel, inputs: FrontInputs, folder: Path, workspace: Workspace) -> Tarball | None:
    """Write the tarball of a repaired wheel into `folder`; None where the recipe wants none."""
    recipe = inputs.build.recipe
    if not recipe.front.tarball:
        return None
    wheel = read_wheel(repaired.path)
    top = top_folder(wheel, repaired)
    path = make_folder(folder / "tarball") / f"{top}{SUFFIX}"
    workspace.reporter.stage("tarball", path.name)
    data = tar_bytes(wheel, package=recipe.package.package, front=recipe.front, top=top, epoch=inputs.source.pin.epoch)
    with storage_guard(path.parent), writing(path) as stream:
        stream.write(zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data))
    return Tarball(path=path, sha256=sha256_file(path), size=path.stat().st_size)


def top_folder(wheel: WheelArchive, repaired: RepairedWheel) -> str:
    """Name the folder that a tarball unpacks to: the package, its version, and the oldest system it runs on."""
    return f"{wheel.info.removesuffix('.dist-info')}-{repaired.platform_tags[0]}"


def members(wheel: WheelArchive, package: str, front: Front) -> dict[str, str]:
    """Map the path of each file in a tarball to the wheel's member that it is."""
    folders = {
        f"{package}/": "",
        f"{wheel.info}/licenses/": f"{_LICENCES}/",
        f"{wheel.info}/sboms/": f"{_BILLS}/",
    }
    linked = {f"{package}/{place}" for place in links(front)}
    return {
        place + name.removeprefix(folder): name
        for folder, place in folders.items()
        for name in wheel.files
        if name.startswith(folder) and not name.endswith(".py") and name not in linked
    }


def links(front: Front) -> dict[str, str]:
    """Map each link of a tarball to what it leads to, in its own folder."""
    return {place: str(front.soname) for place in linker_places(front)}


def tar_bytes(wheel: WheelArchive, *, package: str, front: Front, top: str, epoch: int) -> bytes:
    """Make the tar: sorted, all times `epoch`, nobody's, modes 644 or 755."""
    out = io.BytesIO()
    shipped, linked = members(wheel, package, front), links(front)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted({*shipped, *linked}):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.mtime = epoch
            if name in linked:
                member.type, member.linkname = tarfile.SYMTYPE, linked[name]
                tar.addfile(member)
                continue
            data = wheel.files[shipped[name]]
            member.size = len(data)
            member.mode = _RUNNABLE if shipped[name] in wheel.runnable else _READABLE
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@gate("tarball")
def tarball_gate(wheel: WheelArchive, tarball: Tarball, *, package: str, front: Front) -> str:
    """Check that the tarball holds the wheel's files, which can be run the same, its links, and nothing else.

    All is below one folder.
    """
    top = tarball.path.name.removesuffix(SUFFIX)
    expected: dict[str, tuple[bytes, bool] | str] = {
        f"{top}/{place}": (wheel.files[name], name in wheel.runnable)
        for place, name in members(wheel, package, front).items()
    }
    expected |= {f"{top}/{place}": target for place, target in links(front).items()}
    found = _read(tarball.path)
    refuse_if(_unequal(expected, found))
    return f"{tarball.path.name}: {len(found)} files as in the wheel, sha256 {tarball.sha256}"


def _read(path: Path) -> dict[str, tuple[bytes, bool] | str]:
    """Read every member of a tarball: content and whether it can be run, or where a link leads."""
    with path.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as plain:
        found: dict[str, tuple[bytes, bool] | str] = {}
        with tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                runnable = bool(member.mode & 0o111)
                found[member.name] = member.linkname if content is None else (content.read(), runnable)
    return found


def _unequal(expected: Mapping[str, object], found: Mapping[str, object]) -> Iterable[str]:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"{name} is not in the tarball"
        elif expected.get(name) != found[name]:
            yield f"{name} of the tarball is not what the wheel has"
