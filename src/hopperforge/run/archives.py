"""Unpacking archives that come from outside: nothing they hold may land, or point, beyond the target folder.

Dangerous members are refused whether or not they were wanted: an archive that holds one is not what we pinned.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Final, TypeAlias

from hopperforge.errors import SourceError
from hopperforge.run.files import storage_guard

MemberFilter: TypeAlias = Callable[[PurePosixPath], PurePosixPath | None]
"""Says where a member goes below the target folder, or None to leave it out."""

READER_ERRORS: Final = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError),
    *(
        RuntimeError,
        struct.error,
        ValueError,
    ),  # encrypted, of a later version; short fields; odd names
)
"""What Python's readers of archives raise for damaged ones, beside OSError."""

_EXECUTABLE: Final = 0o111
_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEADER: Final = 60
_AR_END: Final = b"`\n"
_DEB_CONTENT: Final = re.compile(r"data\.tar(\.(gz|bz2|xz))?/?")
_CHUNK: Final = 1 << 20
# What the system says of names and offsets that only a damaged or hostile archive has.
_DAMAGE: Final = frozenset({None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ELOOP})
_ENCRYPTED: Final = 1
_NUL: Final = "\0"


def everything(member: PurePosixPath) -> PurePosixPath:
    """Take every member under its own name."""
    return member


def unpack_tar(archive: Path, into: Path, member_filter: MemberFilter = everything) -> None:
    """Unpack the wanted members of a tar (plain, gzip, bzip2, xz) below `into`; executable bits are kept.

    SourceError, naming archive and member, for an absolute or `..` path, a link out of the tree, a device or
    pipe, a member that comes twice, and for an archive that is cut off, damaged, or none at all.
    """
    links: list[tuple[Path, tarfile.TarInfo]] = []
    with _reading(archive), storage_guard(into), tarfile.open(archive) as tar:
        for member in tar:
            name = _checked_name(archive, member.name)
            _check_kind(archive, member, name)
            wanted = member_filter(name)
            if wanted is None or member.isdir():
                continue
            target = into / wanted
            if member.issym():
                links.append((target, member))
                continue
            _write_member(archive, member.name, _content(archive, tar, member), target, member.mode)
        _check_end(archive, tar)
        # Made last, so that no member is ever written through a link; then judged again, for each may turn the others.
        for target, member in links:
            _make_link(archive, member, target, into)
        for target, member in links:
            _check_link(archive, member, target, into)


def unpack_zip(archive: Path, into: Path, member_filter: MemberFilter = everything) -> None:
    """Unpack the wanted members of a zip (wheels are zips) below `into`; executable bits are kept.

    SourceError as for `unpack_tar`; a zip may hold no links at all.
    """
    with _reading(archive), storage_guard(into), zipfile.ZipFile(archive) as package:
        for member in package.infolist():
            if not member.filename or member.flag_bits & _ENCRYPTED:
                raise _refusal(archive, member.filename, "has no name, or is encrypted")
            name = _checked_name(archive, member.filename)
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, member.filename, "is a link or a device")
            wanted = member_filter(name)
            if wanted is not None and not member.is_dir():
                with package.open(member) as content:
                    _write_member(archive, member.filename, content, into / wanted, mode)


def unpack_deb(archive: Path, into: Path, members: Mapping[str, str]) -> None:
    """Unpack files of a Debian package below `into`: `members` maps each to its place there.

    Reading ends with the last of them, for such a package may be gigabytes; so call it for verified files only.
    SourceError as for `unpack_tar`, and for a file that the package lacks. Links of a package may be absolute, for
    their root is the system it is made for; none is unpacked.
    """
    missing = {PurePosixPath(member): PurePosixPath(place) for member, place in members.items()}
    with _reading(archive), storage_guard(into), archive.open("rb") as file:
        _find_deb_content(archive, file)
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                name = _checked_name(archive, member.name)
                if not member.issym():
                    _check_kind(archive, member, name)
                if name not in missing:
                    continue
                if not member.isreg():
                    raise _refusal(archive, member.name, "is wanted as a file, and is none")
                _write_member(
                    archive, member.name, _content(archive, tar, member), into / missing.pop(name), member.mode
                )
                if not missing:
                    return
    lacks = ", ".join(str(name) for name in missing)
    raise SourceError(f"{archive.name} is not what was expected: it lacks {lacks}", detail=[f"at {archive}"])


def _find_deb_content(archive: Path, file: IO[bytes]) -> None:
    """Go to the tar of files in a Debian package, which is an ar archive; the tar is its last member."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise _damaged(archive, "it is no Debian package")
    while header := file.read(_AR_HEADER):
        name, size = header[:16].decode("ascii", "replace").strip(), header[48:58].strip()
        if header[58:] != _AR_END or not size.isdigit():
            break
        if _DEB_CONTENT.fullmatch(name):
            return
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise _damaged(archive, "it holds no data.tar that can be read")


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say in our words what the archive readers raise for a damaged file."""
    try:
        yield
    except READER_ERRORS as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        # gzip and bzip2 report a damaged stream as an OSError without a number
        if error.errno not in _DAMAGE:
            raise
        raise _damaged(archive, str(error)) from error


def _damaged(archive: Path, reason: str) -> SourceError:
    return SourceError(
        f"{archive.name} is cut off, damaged, or not an archive: {reason}",
        detail=[f"at {archive}"],
        hint=f"rm {archive}   # it is fetched again by the next run",
    )


def _refusal(archive: Path, member: str, reason: str) -> SourceError:
    return SourceError(f"{archive.name} is refused: its member {member!r} {reason}", detail=[f"at {archive}"])


def _checked_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if _NUL in name:
        raise _refusal(archive, name, "has a zero byte in its name")
    if path.is_absolute():
        raise _refusal(archive, name, "has an absolute path")
    if ".." in path.parts:
        raise _refusal(archive, name, "climbs out of its folder with `..`")
    return path


def _check_kind(archive: Path, member: tarfile.TarInfo, name: PurePosixPath) -> None:
    if (member.issym() or member.islnk()) and (not member.linkname or _NUL in member.linkname):
        raise _refusal(archive, member.name, "is a link to nothing that can be named")
    if member.issym():
        if _climbs_out(name.parent, member.linkname):
            raise _refusal(archive, member.name, f"is a link out of the tree, to {member.linkname!r}")
    elif member.islnk():
        if _climbs_out(PurePosixPath(), member.linkname):
            raise _refusal(archive, member.name, f"is a link out of the tree, to {member.linkname!r}")
    elif not (member.isfile() or member.isdir()):
        raise _refusal(archive, member.name, "is a device or a pipe")


def _climbs_out(folder: PurePosixPath, target: str) -> bool:
    """Whether `target`, read from `folder` inside the archive, lies outside the archive's tree."""
    return target.startswith("/") or os.path.normpath(folder / target).split("/")[0] == ".."


def _content(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """A file's own content, or that of the file a hard link stands for."""
    try:
        content = tar.extractfile(member)
    except KeyError:
        content = None
    if content is None:
        raise _refusal(archive, member.name, f"is a link to {member.linkname!r}, which is no file of the archive")
    return content


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """A whole tar ends in a block of zeros; tarfile itself also stops quietly at a cut or at a damaged header."""
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _damaged(archive, "it does not end where its members end")
    while tar.fileobj.read(_CHUNK):  # a compressed stream has its checksum at the very end
        pass


def _write_member(archive: Path, name: str, content: IO[bytes], target: Path, mode: int) -> None:
    _make_folder_for(archive, name, target)
    try:
        with target.open("xb") as stream:
            shutil.copyfileobj(content, stream, _CHUNK)
    except FileExistsError as error:
        raise _refusal(archive, name, "comes twice") from error
    if mode & _EXECUTABLE:
        target.chmod(target.stat().st_mode | _EXECUTABLE)


def _make_folder_for(archive: Path, name: str, target: Path) -> None:
    """Create the folder a member goes into; SourceError if the archive has a file where the folder should be."""
    try:
        with storage_guard(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _refusal(archive, name, "lies below another file") from error


def _make_link(archive: Path, member: tarfile.TarInfo, target: Path, into: Path) -> None:
    # Other links of the archive may lie on the way, so what counts is where a path really ends.
    if not _ends_below(target.parent, into):
        raise _refusal(archive, member.name, "lies below a link out of the tree")
    _make_folder_for(archive, member.name, target)
    if not _ends_below(target.parent / member.linkname, into):
        raise _refusal(archive, member.name, f"is a link out of the tree, to {member.linkname!r}")
    try:
        target.symlink_to(member.linkname)
    except FileExistsError as error:
        raise _refusal(archive, member.name, "comes twice") from error


def _check_link(archive: Path, member: tarfile.TarInfo, target: Path, into: Path) -> None:
    """Refuse a link that, among all links, leads out or back to itself; to a file that was left out it may lead."""
    try:
        target.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _refusal(archive, member.name, f"is a link back to itself, to {member.linkname!r}") from error
    if not _ends_below(target, into):
        target.unlink()
        raise _refusal(archive, member.name, f"is a link out of the tree, to {member.linkname!r}")


def _ends_below(path: Path, into: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(into))
