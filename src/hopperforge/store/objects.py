"""Compiled objects by unit key, checked every time they are read.

A key's folder holds the object under its own sha256 and an `entry.json` that names it. The entry is written last and
only ever created, never replaced: whatever moment a run dies at, either there is no entry or the entry tells the
truth about which bytes belong to the key. Archives of many objects are in `store.packs`.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
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
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")


class ObjectStore:
    """Objects in a folder or a bucket; `place` is what messages call it."""

    def __init__(self, backend: Backend, *, place: Path, reporter: Reporter) -> None:
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
        with _guarded(self._place):
            try:
                return obstore.head(self._backend, _object_name(entry))["size"] == entry.size
            except FileNotFoundError:
                return False

    def find(self, key: str) -> PackedUnit | None:
        """The entry of a key whose object was just read and hashed; a damaged one is reported, removed and None."""
        found = self._load(key)
        return None if found is None else found[0]

    def read(self, key: str) -> bytes | None:
        """The bytes of a key, checked; a damaged object is reported, removed and None."""
        found = self._load(key)
        return None if found is None else found[1]

    def put(self, key: str, data: bytes, *, path: str, cost: Cost | None) -> PackedUnit:
        """Keep the object of unit `path` under `key`, and return what now stands there.

        If other bytes stand there already they stay, and the difference is reported: the unit is not reproducible.
        """
        entry = PackedUnit(path=path, key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data), cost=cost)
        while True:
            with _guarded(self._place):
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

    def _keep_first(self, standing: PackedUnit, late: PackedUnit) -> PackedUnit:
        if standing.sha256 != late.sha256:
            self._reporter.warn(
                f"{late.path} is not reproducible: key {late.key} gave an object with sha256 {standing.sha256} first"
                f" and now {late.sha256}; the first is kept"
            )
            self._remove(_object_name(late))
        return standing

    def _load(self, key: str) -> tuple[PackedUnit, bytes] | None:
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
        self._reporter.warn(f"{self._place}: {key} is damaged ({what}); it was removed and will be compiled again")
        for name in (_entry_name(key), *names):  # the entry first: without it nothing else is trusted
            self._remove(name)

    def _read(self, name: str) -> bytes | None:
        with _guarded(self._place):
            try:
                return obstore.get(self._backend, name).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def _remove(self, name: str) -> None:
        with _guarded(self._place), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._backend, name)


def _entry_name(key: str) -> str:
    return f"{key[:2]}/{key}/entry.json"


def _object_name(entry: PackedUnit) -> str:
    return f"{entry.key[:2]}/{entry.key}/{entry.sha256}.o"


@contextlib.contextmanager
def _guarded(place: Path) -> Iterator[None]:
    """Turn obstore's errors into StorageError, those of the system (it tells them in words only) by `storage_guard`."""
    with storage_guard(place):
        try:
            yield
        except BaseError as error:
            number = _OS_ERROR.search(str(error))
            first_line = str(error).partition("\n")[0]
            if number is not None:
                raise OSError(int(number[1]), first_line) from error
            raise StorageError(f"the object store at {place} failed: {first_line}") from error
