"""Where an index is published to: a folder or a bucket, as files by name, with what concurrent publishers need.

Two kinds of writing are enough. `create` makes what is never changed under its name; `replace` changes a file that is
still what the writer looked at. What an index consists of is known elsewhere.
"""

import contextlib
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import ObjectStore as Backend

from hopperforge.errors import InputError, StorageError
from hopperforge.index.whole import cache_control, content_type
from hopperforge.model.place import StorePlace
from hopperforge.run.files import Lock, sha256_file, storage_guard, sweep, write_atomic
from hopperforge.run.workspace import Workspace
from hopperforge.store.objects import guarded, told
from hopperforge.store.shared import open_bucket

if TYPE_CHECKING:  # this exists for type checkers alone
    from obstore import UpdateVersion

_T = TypeVar("_T")
_N = TypeVar("_N")

_NAME: Final = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._+!=-]*/)*[A-Za-z0-9_][A-Za-z0-9._+!=-]*")
_LOCK: Final = ".lock"
_UPLOAD_TIMEOUT: Final = timedelta(minutes=15)
_AT_ONCE: Final = 16
_ATTEMPTS: Final = 200
_LONGEST_PAUSE: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which state of a file was seen; to be compared and handed back only."""

    tag: str
    size: int
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A file's bytes and the mark of that state."""

    data: bytes
    mark: Mark


class Target(Protocol):
    """An index's files by name, as in pool/fa3-fwd/NAME.whl; StorageError where the place does not do its part."""

    @property
    def place(self) -> str:
        """The place as messages name it."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other publishers out where the place can do that; where it cannot, `replace` sees what they did."""

    def mark(self, name: str) -> Mark | None:
        """The mark of a file's present state; None if there is no such file."""

    def fetch(self, name: str) -> Held | None:
        """A file whole; None if there is no such file."""

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """Whether the file that was seen as `mark` has these bytes."""

    def create(self, name: str, data: bytes) -> bool:
        """Make a file, all of it or nothing; False, and nothing done, if there is one."""

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """Write a file that is still in the state `seen`, None for not there; False, and nothing done, if it is not."""


def open_target(place: StorePlace, workspace: Workspace) -> Target:
    """Open a place for publishing; StorageError if the folder above it is missing, or a bucket cannot be opened."""
    folder = place.folder
    if folder is None:
        bucket = BucketTarget(open_bucket(place, workspace.environ, request_timeout=_UPLOAD_TIMEOUT), place=str(place))
        bucket.probe()
        return bucket
    if not folder.parent.is_dir():  # to make it would hide that the disk behind it is not mounted
        raise StorageError(f"there is no folder {folder.parent} to make {folder.name} in", hint=f"mkdir -p {folder}")
    return FolderTarget(folder, on_wait=lambda: workspace.reporter.note(f"waiting for another publisher in {folder}"))


class FolderTarget:
    """A folder. Publishers exclude each other by a lock in it, and readers see every file whole or not at all."""

    def __init__(self, folder: Path, *, on_wait: Callable[[], None] | None = None) -> None:
        self._folder = folder
        self._on_wait = on_wait

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the folder's lock."""
        return self._locked()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with Lock(self._folder / _LOCK, on_wait=self._on_wait):
            yield

    def mark(self, name: str) -> Mark | None:
        """As Target.mark; the tag is the content's sha256."""
        path = self._path(name)
        if not path.is_file():
            return None
        return Mark(tag=sha256_file(path), size=path.stat().st_size)

    def fetch(self, name: str) -> Held | None:
        """As Target.fetch."""
        path = self._path(name)
        if not path.is_file():
            return None
        data = path.read_bytes()
        return Held(data=data, mark=Mark(tag=hashlib.sha256(data).hexdigest(), size=len(data)))

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """As Target.holds."""
        del name  # the mark is of the content
        return mark is not None and mark.size == len(data) and mark.tag == hashlib.sha256(data).hexdigest()

    def create(self, name: str, data: bytes) -> bool:
        """As Target.create, while the lock is held."""
        return self.replace(name, data, None)

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """As Target.replace, while the lock is held."""
        path = self._path(name)
        with storage_guard(self._folder):
            if self.mark(name) != seen:
                return False
            if path.parent.is_dir():
                sweep(path.parent, path.name)
            write_atomic(path, data)
        return True

    def _path(self, name: str) -> Path:
        return self._folder / checked_name(name)


class BucketTarget:
    """A prefix of a bucket. Nobody is kept out: a writer who comes too late is told so and looks again."""

    def __init__(self, backend: Backend, *, place: str) -> None:
        self._backend = backend
        self._place = place

    @property
    def place(self) -> str:
        """The bucket and prefix."""
        return self._place

    def probe(self) -> None:
        """Ask one small question; StorageError if nobody answers, or there is no such bucket.

        Needed since a bucket that does not exist answers like one that lacks the file.
        """
        with guarded(self._place):
            try:
                for _ in obstore.list(self._backend, prefix="all", chunk_size=1):
                    return
            except FileNotFoundError as error:
                raise StorageError(f"the object store at {self._place} failed: {told(error)}") from error

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep nobody out."""
        return contextlib.nullcontext()

    def mark(self, name: str) -> Mark | None:
        """As Target.mark."""
        with guarded(self._place):
            try:
                return _mark(obstore.head(self._backend, checked_name(name)))
            except FileNotFoundError:
                return None

    def fetch(self, name: str) -> Held | None:
        """As Target.fetch."""
        with guarded(self._place):
            try:
                answer = obstore.get(self._backend, checked_name(name))
            except FileNotFoundError:
                return None
            return Held(data=answer.bytes().to_bytes(), mark=_mark(answer.meta))

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """As Target.holds; most buckets tell the MD5 of the content, else it is read."""
        if mark is None or mark.size != len(data):
            return False
        if mark.tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return True
        held = self.fetch(name)
        return held is not None and held.mark == mark and held.data == data

    def create(self, name: str, data: bytes) -> bool:
        """As Target.create."""
        return self._put(name, data, "create")

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """As Target.replace."""
        if seen is None:
            return self.create(name, data)
        update: UpdateVersion = {"e_tag": seen.tag}
        if seen.version is not None:
            update["version"] = seen.version
        return self._put(name, data, update)

    def _put(self, name: str, data: bytes, mode: "UpdateVersion | Literal['create']") -> bool:
        attributes = {"Content-Type": content_type(name), "Cache-Control": cache_control(name)}
        with guarded(self._place):
            try:
                # in one request, whatever its size: what is cut off on the way leaves nothing
                obstore.put(
                    self._backend, checked_name(name), data, mode=mode, attributes=attributes, use_multipart=False
                )
            except (AlreadyExistsError, PreconditionError):
                return False
        return True


class Rehearsal:
    """Another target on which nothing is written: what would be is read back from here."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._written: dict[str, bytes] = {}

    @property
    def place(self) -> str:
        """The other target's."""
        return self._target.place

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep nobody out: nothing is written."""
        return contextlib.nullcontext()

    def mark(self, name: str) -> Mark | None:
        """As Target.mark."""
        held = self._held(name)
        return self._target.mark(name) if held is None else held.mark

    def fetch(self, name: str) -> Held | None:
        """As Target.fetch."""
        held = self._held(name)
        return self._target.fetch(name) if held is None else held

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """As Target.holds."""
        held = self._held(name)
        return self._target.holds(name, mark, data) if held is None else held.data == data

    def create(self, name: str, data: bytes) -> bool:
        """As Target.create."""
        return self.replace(name, data, None)

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """As Target.replace."""
        if self.mark(name) != seen:
            return False
        self._written[name] = data
        return True

    def _held(self, name: str) -> Held | None:
        data = self._written.get(name)
        if data is None:
            return None
        return Held(data=data, mark=Mark(tag="rehearsed " + hashlib.sha256(data).hexdigest(), size=len(data)))


def checked_name(name: str) -> str:
    """The name, if it is one that stays inside the index; InputError otherwise."""
    if _NAME.fullmatch(name) is None:
        raise InputError(f'"{name}" is no name of a file in an index')
    return name


def try_again(attempt: Callable[[], _T | None], place: str) -> _T:
    """Call `attempt` until it returns something; None means that another publisher came first."""
    for number in range(_ATTEMPTS):
        done = attempt()
        if done is not None:
            return done
        longest = min(_LONGEST_PAUSE, 0.02 * 2**number)
        time.sleep(random.uniform(0, longest))  # noqa: S311 - it parts writers, and hides nothing
    raise StorageError(
        f"{place} changed under our hands {_ATTEMPTS} times: others publish all the time, or it compares no states",
        hint="run the same command again; docs/how-to/publish.md says what a store must do",
    )


def at_once(work: Callable[[_N], _T], items: Sequence[_N]) -> list[_T]:
    """`work` of each item, in their order; waiting for a store costs time and no core, so many wait side by side."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _mark(meta: "obstore.ObjectMeta") -> Mark:
    return Mark(tag=meta["e_tag"] or "", size=meta["size"], version=meta["version"])
