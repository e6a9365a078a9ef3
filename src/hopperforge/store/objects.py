"""Compiled objects by unit key in one store, checked every time they are read.

A store is a folder or a bucket; `store.shared` puts this machine's together with one that machines share. A key's
place in it holds the object under its own sha256 and an `entry.json` that names it. The entry is written last and
only ever created, never replaced: whatever moment a run dies at, and however many machines write, either there is no
entry or the entry tells the truth about which bytes belong to the key. No time is ever compared. Archives of many
objects are in `store.packs`.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore
from obstore.store import ObjectStore as Backend
from pydantic import TypeAdapter, ValidationError

from hopperforge.errors import StorageError
from hopperforge.model.keys import canonical_json
from hopperforge.model.pack import Cost, PackedUnit
from hopperforge.report import Reporter
from hopperforge.run.files import make_folder, storage_guard

_ENTRY: Final = TypeAdapter(PackedUnit)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME: Final = "entry.json"
_OBJECT_SUFFIX: Final = ".o"
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
# A bucket's answer comes as XML in the message, a failed connection as obstore's own notation; this is what they say.
_ANSWER: Final = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", re.DOTALL)
_SYSTEM_WORDS: Final = re.compile(r'message: "([^"]+)"')


class ObjectStore:
    """Objects in a folder, whose `place` is a path, or in a bucket, whose `place` is what messages call it."""

    def __init__(self, backend: Backend, *, place: Path | str, reporter: Reporter) -> None:
        self._backend = backend
        self._place = place
        self._reporter = reporter

    @classmethod
    def local(cls, folder: Path, reporter: Reporter) -> "ObjectStore":
        """Open the store in a local folder, made if missing; StorageError if that is impossible."""
        return cls(LocalStore(make_folder(folder)), place=folder, reporter=reporter)

    def holds(self, key: str) -> bool:
        """Whether an object of the right size is there; its bytes are not read, so this is for plans only."""
        entry = self._entry(key)
        if entry is None:
            return False
        with guarded(self._place):
            try:
                return obstore.head(self._backend, _object_name(entry))["size"] == entry.size
            except FileNotFoundError:
                return False

    def find(self, key: str) -> PackedUnit | None:
        """The entry of a key whose object was just read and hashed; a damaged one is reported, removed and None."""
        found = self.load(key)
        return None if found is None else found[0]

    def read(self, key: str) -> bytes | None:
        """The bytes of a key, checked; a damaged object is reported, removed and None."""
        found = self.load(key)
        return None if found is None else found[1]

    def load(self, key: str) -> tuple[PackedUnit, bytes] | None:
        """The entry and the bytes of a key, which count as used now; a damaged object is reported, removed and None."""
        found = self.check(key)
        if found is not None and isinstance(self._place, Path):
            with contextlib.suppress(OSError):  # a store that may only be read is as good; it is not trimmed from here
                os.utime(self._place / _entry_name(key))
        return found

    def put(self, key: str, data: bytes, *, path: str, cost: Cost | None) -> PackedUnit:
        """Keep the object of unit `path` under `key`, and return what now stands there.

        If other bytes stand there already they stay, and the difference is reported: the unit is not reproducible.
        """
        entry = PackedUnit(path=path, key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data), cost=cost)
        while True:
            with guarded(self._place):
                # the name is the content's hash, so replacing can only mend; obstore renames into place
                obstore.put(self._backend, _object_name(entry), data)
                try:
                    obstore.put(self._backend, _entry_name(key), canonical_json(asdict(entry)), mode="create")
                except AlreadyExistsError:
                    standing = self.find(key)
                else:
                    return entry
            if standing is not None:
                return self._keep_first(standing, entry)

    def replace(self, key: str, data: bytes, *, path: str, cost: Cost | None) -> PackedUnit:
        """Keep an object in place of the one that stands under its key: for a copy that gives way to the original."""
        entry = self._entry(key)
        self._remove(_entry_name(key))
        if entry is not None:
            self._remove(_object_name(entry))
        return self.put(key, data, path=path, cost=cost)

    def sizes(self) -> Mapping[str, int]:
        """The bytes of each object by key, for those that have an entry; nothing is read, so damage is not seen."""
        found: dict[str, int] = {}
        entered: set[str] = set()
        with guarded(self._place):
            for name, size in ((meta["path"], meta["size"]) for page in obstore.list(self._backend) for meta in page):
                key, _, last = name.partition("/")[2].partition("/")
                if last == _ENTRY_NAME:
                    entered.add(key)
                elif last.endswith(_OBJECT_SUFFIX):
                    found[key] = found.get(key, 0) + size
        return {key: found.get(key, 0) for key in sorted(entered)}

    def probe(self) -> None:
        """Ask the store one small question; StorageError if it does not answer, or says that it is not there.

        Needed since a bucket that does not exist answers like one that lacks the object.
        """
        with guarded(self._place):
            for _ in obstore.list(self._backend, prefix="00", chunk_size=1):
                return

    def _keep_first(self, standing: PackedUnit, late: PackedUnit) -> PackedUnit:
        if standing.sha256 != late.sha256:
            self._reporter.warn(
                f"{late.path} is not reproducible: key {late.key} gave an object with sha256 {standing.sha256} first"
                f" and now {late.sha256}; the first is kept"
            )
            self._remove(_object_name(late))
        return standing

    def check(self, key: str) -> tuple[PackedUnit, bytes] | None:
        """As `load`, but for looking only: the object does not count as used."""
        entry = self._entry(key)
        if entry is None:
            return None
        data = self._read(_object_name(entry))
        if data is not None and hashlib.sha256(data).hexdigest() == entry.sha256:
            return entry, data
        what = "is missing" if data is None else "does not match its sha256"
        self._damaged(key, f"the object of {entry.path} {what}", _object_name(entry))
        return None

    def _entry(self, key: str) -> PackedUnit | None:
        text = self._read(_entry_name(key))
        if text is None:
            return None
        try:
            entry = _ENTRY.validate_json(text, strict=True)
        except ValidationError:
            entry = None
        if entry is not None and entry.key == key and _SHA256.fullmatch(entry.sha256):
            return entry
        self._damaged(key, "its entry is not readable")
        return None

    def _damaged(self, key: str, what: str, *names: str) -> None:
        self._reporter.warn(f"{self._place}: {key} is damaged ({what}); it was removed and will be made again")
        for name in (_entry_name(key), *names):  # the entry first: without it nothing else is trusted
            self._remove(name)

    def _read(self, name: str) -> bytes | None:
        with guarded(self._place):
            try:
                return obstore.get(self._backend, name).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def _remove(self, name: str) -> None:
        with guarded(self._place), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._backend, name)


def _entry_name(key: str) -> str:
    return f"{key[:2]}/{key}/{_ENTRY_NAME}"


def _object_name(entry: PackedUnit) -> str:
    return f"{entry.key[:2]}/{entry.key}/{entry.sha256}{_OBJECT_SUFFIX}"


@contextlib.contextmanager
def guarded(place: Path | str) -> Iterator[None]:
    """Turn obstore's errors into StorageError.

    Those of a folder, which obstore tells in words only, are the system's: see `storage_guard`.
    """
    with storage_guard(place) if isinstance(place, Path) else contextlib.nullcontext():
        try:
            yield
        except BaseError as error:
            number = _OS_ERROR.search(str(error)) if isinstance(place, Path) else None
            if number is not None:
                raise OSError(int(number[1]), _first_line(error)) from error
            raise StorageError(f"the object store at {place} failed: {told(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def told(error: Exception) -> str:
    """What went wrong, in a line: what we asked and how the store, or else the system, put it."""
    text = str(error)
    answer, words = _ANSWER.search(text), _SYSTEM_WORDS.search(text)
    line = _first_line(error).partition(": <?xml")[0]
    if answer is not None:
        return f"{line} ({answer[1]}: {answer[2]})"
    return f"{line} ({words[1]})" if words is not None else line
