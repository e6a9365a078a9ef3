"""Making this machine's store smaller, and keeping from that what a running build needs.

What was used longest ago goes first. Use is the time of an object's entry or a pack's note, which reading sets: it is
this machine's own time about its own folder, and nobody else's is compared with it. The shared store is never trimmed
from here, for nobody here knows who uses it.
"""

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.report import Reporter
from hopperforge.run.files import Lock, make_folder, remove_folder, storage_guard

OBJECTS: Final = "objects"
PACKS: Final = "packs"
_IN_USE: Final = "in-use"
_LOCK: Final = "trim.lock"
_ENTRY: Final = "entry.json"
_ARCHIVE: Final = ".tar"
_NOTE: Final = ".json"


@contextlib.contextmanager
def in_use(store: Path, keys: Iterable[str], reporter: Reporter) -> Iterator[None]:
    """Keep the objects and packs of `keys` from being trimmed while the block runs, by any process of this machine.

    The keys stand in a file that is locked as long as we live; that of a killed run is not, and counts for nothing.
    """
    path = make_folder(store / _IN_USE) / f"{secrets.token_hex(8)}.keys"
    with contextlib.ExitStack() as stack:
        with _trim_lock(store, reporter):
            stack.enter_context(Lock(path))
            path.write_text("\n".join(keys), encoding="utf-8")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """What trimming came to: how many were removed, and the bytes freed, left, and of these in use by a build."""

    objects: int
    packs: int
    freed: int
    left: int
    in_use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """An object or a pack with all that belongs to it."""

    key: str
    is_pack: bool
    size: int
    used: float
    place: Path

    def remove(self) -> None:
        """Remove it; what names it goes first, so that a kill in between leaves nothing that is trusted."""
        if self.is_pack:
            self.place.with_suffix(_NOTE).unlink(missing_ok=True)
            self.place.unlink(missing_ok=True)
        else:
            (self.place / _ENTRY).unlink(missing_ok=True)
            remove_folder(self.place)


def trim(store: Path, limit: int, reporter: Reporter) -> Trimmed:
    """Remove objects and packs, those used longest ago first, until at most `limit` bytes are left.

    What a running build needs stays, even where that is more than `limit`. StorageError if the store cannot be written.
    """
    with storage_guard(store), _trim_lock(store, reporter):
        kept = _keys_in_use(store)
        items = sorted(_items(store), key=lambda item: (item.used, not item.is_pack, item.key))
        left = sum(item.size for item in items)
        removed: list[_Item] = []
        for item in items:
            if left <= limit:
                break
            if item.key not in kept:
                item.remove()
                removed.append(item)
                left -= item.size
        return Trimmed(
            objects=sum(not item.is_pack for item in removed),
            packs=sum(item.is_pack for item in removed),
            freed=sum(item.size for item in removed),
            left=left,
            in_use=sum(item.size for item in items if item.key in kept),
        )


def _trim_lock(store: Path, reporter: Reporter) -> Lock:
    return Lock(store / _LOCK, on_wait=lambda: reporter.note("waiting for another run that trims the store"))


class _Held(Exception):  # noqa: N818 - a state: the run that wrote the file is alive
    pass


def _raise_held() -> None:
    raise _Held


def _keys_in_use(store: Path) -> frozenset[str]:
    """The keys that runs of this machine need; what killed runs left is removed. Call it holding the trim lock."""
    keys: set[str] = set()
    for path in (store / _IN_USE).glob("*.keys"):
        try:
            with Lock(path, on_wait=_raise_held):
                path.unlink(missing_ok=True)
        except _Held:
            keys |= set(path.read_text(encoding="utf-8").split())
    return frozenset(keys)


def _items(store: Path) -> Iterator[_Item]:
    """Every object and pack; one that lacks its entry or its note is what a killed run left, and was never used."""
    for place in (store / OBJECTS).glob("*/*"):
        if place.is_dir():
            size = sum(path.stat().st_size for path in place.iterdir() if path.is_file())
            yield _Item(key=place.name, is_pack=False, size=size, used=_time(place / _ENTRY), place=place)
    for place in (store / PACKS).glob(f"[!.]*{_ARCHIVE}"):
        note = place.with_suffix(_NOTE)
        size = sum(path.stat().st_size for path in (place, note) if path.is_file())
        yield _Item(key=place.stem, is_pack=True, size=size, used=_time(note), place=place)


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0
