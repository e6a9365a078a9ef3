"""Files and folders on disk: hashing, atomic publishing, locks, and what a full or closed disk is called.

Archives are in `run.archives`, the network in `run.download`. Nothing here knows what a file means.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from hopperforge.errors import SourceError, StorageError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def sha256_file(path: Path) -> str:
    """Hash a file's content with sha256; the answer is in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def storage_guard(place: Path) -> Iterator[None]:
    """Turn "disk full", "permission denied", "read-only" and "not a folder" below `place` into a StorageError.

    Every other OSError passes through unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(place, detail=_culprit(error)) from error
        if error.errno in _CLOSED:
            raise StorageError(
                f"{place} cannot be written: {os.strerror(error.errno or 0).lower()}",
                detail=[f"we are user {os.geteuid()}", *_culprit(error)],
                hint=f"ls -ld {_standing(place)}   # make it writable, or choose another folder",
            ) from error
        raise


def disk_full(place: Path, *, detail: Sequence[str] = ()) -> StorageError:
    """Make the error of a full disk below `place`: how full it is, `detail`, and how to look."""
    return StorageError(
        f"the disk that holds {place} is full",
        detail=[_free_space(place), *detail],
        hint=f"df -h {_mount_point(place)}   # free some space, then run the same command again",
    )


def says_disk_full(line: str) -> bool:
    """Whether a line some program printed says that a disk, or the user's part of it, is full."""
    return any(os.strerror(number) in line for number in _FULL)


def _culprit(error: OSError) -> list[str]:
    return [] if error.filename is None else [f"at {error.filename}"]


def _standing(place: Path) -> Path:
    """The nearest folder at or above `place` that exists."""
    return next((folder for folder in (place, *place.parents) if folder.is_dir()), Path("/"))


def _mount_point(place: Path) -> Path:
    """Where the disk that holds `place` is mounted: it still stands when a temporary folder is gone."""
    standing = _standing(place).absolute()
    return next((folder for folder in (standing, *standing.parents) if folder.is_mount()), Path("/"))


def _free_space(place: Path) -> str:
    usage = shutil.disk_usage(_standing(place))
    return f"{usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f} MB"


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if they are missing; StorageError if that is not allowed."""
    with storage_guard(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(
                f"{path} cannot be made: a file stands where a folder should be", hint=f"ls -ld {path} {path.parent}"
            ) from error
    return path


@contextlib.contextmanager
def writing(final: Path) -> Iterator[IO[bytes]]:
    """Yield a stream whose content becomes `final` at once when the block ends well, and vanishes otherwise.

    The stream belongs to a hidden file `.<name>.<random>.part` in the same folder.
    """
    make_folder(final.parent)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    with storage_guard(final.parent):
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(final)
            _sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file: temporary name, fsync, rename; missing parents are made. StorageError if impossible."""
    with writing(path) as stream:
        stream.write(data)


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone may read, from the first byte on; FileExistsError if it is there."""
    with storage_guard(path.parent):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder `.<prefix>.<random>` in `parent`; it is removed at the end if it is still there."""
    make_folder(parent)
    folder = parent / f".{prefix}.{secrets.token_hex(4)}"
    with storage_guard(parent):
        folder.mkdir()
        try:
            yield folder
        finally:
            remove_folder(folder)


def replace_folder(temporary: Path, final: Path) -> None:
    """Publish a finished folder under its final name in one step; if `final` stands already, drop `temporary`.

    Both lie on one file system. The content is not flushed file by file: who uses a published folder
    checks it against hashes first, so a power cut costs a second unpacking and no wrong bytes.
    """
    with storage_guard(final.parent):
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_folder(temporary)
        _sync_folder(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds, read-only folders included; a missing one is fine."""
    if not folder.is_dir():
        return
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
        if not os.access(inner, os.W_OK | os.X_OK):
            inner.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


def sweep(parent: Path, name: str) -> None:
    """Remove what a killed run left half made of `name` in `parent`; call it only while holding the lock of `name`."""
    for left in parent.glob(f".{glob.escape(name)}.*"):
        if left.is_dir():
            remove_folder(left)
        else:
            left.unlink(missing_ok=True)


class Lock:
    """An exclusive lock on a file, shared by processes; a context manager.

    `on_wait` is called once if someone else holds the lock. The lock ends when the last descriptor of it is
    closed: a child that inherits `fileno()` (process.run(keep_open=...)) keeps it although we are killed.
    The file itself stays: removing a lock file would let two owners in.
    """

    def __init__(self, path: Path, *, on_wait: Callable[[], None] | None = None) -> None:
        self._path = path
        self._on_wait = on_wait
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        with storage_guard(self._path):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._acquire(self._descriptor)
        except BaseException:  # an interrupt while waiting must not leave the descriptor behind
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def fileno(self) -> int:
        """The descriptor that holds the lock; ValueError outside the `with` block."""
        if self._descriptor is None:
            message = f"the lock {self._path} is not held"
            raise ValueError(message)
        return self._descriptor

    def _acquire(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._on_wait is not None:
                self._on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def git_tree_hash(folder: Path) -> str:
    """Compute the hash git gives the tree object of `folder`, every file taken as mode 100644, in hex.

    Folders without files do not count, as in git. SourceError for a symbolic link or a special file.
    """
    return _tree(folder).hex()


def _tree(folder: Path) -> bytes:
    # git orders entries by name as bytes, a folder's name counted as if it ended in a slash
    entries: list[tuple[bytes, bytes]] = []
    for path in folder.iterdir():
        name = os.fsencode(path.name)
        if path.is_dir() and not path.is_symlink():
            digest = _tree(path)
            if digest != _EMPTY_TREE:
                entries.append((name + b"/", b"40000 " + name + b"\0" + digest))
        elif path.is_file() and not path.is_symlink():
            entries.append((name, b"100644 " + name + b"\0" + _git_object(b"blob", path.read_bytes())))
        else:
            message = f"{path} is neither a file nor a folder, so {folder} has no tree hash"
            raise SourceError(message)
    return _git_object(b"tree", b"".join(line for _, line in sorted(entries)))


def _git_object(kind: bytes, content: bytes) -> bytes:
    # git's object names are sha1: here it is a name to compare with upstream's, and the commit pins the same trees
    return hashlib.sha1(kind + b" %d\0" % len(content) + content, usedforsecurity=False).digest()


_EMPTY_TREE: Final = _git_object(b"tree", b"")
