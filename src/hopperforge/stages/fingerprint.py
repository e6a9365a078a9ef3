"""Fingerprints of installed tools: the sha256 of each part, remembered as long as the files look untouched.

Hashing a toolkit reads some 200 MB. What was hashed once is kept in `fingerprints.json` in the cache with a stamp of
every file's path, size and times; any difference there means hashing again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from hopperforge.model.keys import canonical_json
from hopperforge.run.files import Lock, sha256_file, write_atomic

_FORMAT: Final = 1


def fingerprint(parts: Mapping[str, Path], trees: Mapping[str, Path], cache: Path) -> Mapping[str, str]:
    """Give the sha256 of each part, a file, and of each tree, a folder, by their names.

    A tree's hash covers the relative path and content of every file below it, links followed. `cache` is the
    folder that holds fingerprints.json. Raises OSError for a part that is missing.
    """
    listed = {name: list(files_below(folder)) for name, folder in trees.items()}
    stamp = _stamp([*parts.values(), *(path for paths in listed.values() for path in paths)])
    known = _Known(cache)
    found = known.find(stamp)
    if found is None or found.keys() != parts.keys() | trees.keys():
        found = {name: sha256_file(path) for name, path in parts.items()}
        found |= {name: _tree_hash(trees[name], paths) for name, paths in listed.items()}
        known.add(stamp, found)
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder` in a fixed order, links followed, dead ones left out; no folder counts twice."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (path for path in (Path(place, name) for name in sorted(files)) if path.is_file())


def _tree_hash(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _stamp(paths: Iterable[Path]) -> str:
    """A hash over how the files look from outside; the time of the last change of state cannot be set back."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n".encode())
    return digest.hexdigest()


class _Known:
    """The fingerprints found earlier, by stamp."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "fingerprints.json"

    def find(self, stamp: str) -> dict[str, str] | None:
        entry = self._read().get(stamp)
        return entry if isinstance(entry, dict) else None

    def add(self, stamp: str, found: Mapping[str, str]) -> None:
        with Lock(self._path.with_suffix(".lock")):
            write_atomic(self._path, canonical_json({"format": _FORMAT, "known": {**self._read(), stamp: dict(found)}}))

    def _read(self) -> dict[str, dict[str, str]]:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            content = json.loads(self._path.read_bytes())
            if content["format"] == _FORMAT:
                return dict(content["known"])
        return {}
