"""The publish stage: packages into an index, whatever else happens to it at the same time.

The catalog, packages.json, is the only truth about what is published; everything else follows from it.

1. A package's files go into the pool and are never changed there. Only its record may grow (`index.joining`).
2. The catalog is replaced while it is still what its new content was made from. Before a package is in it, its files
   are. An entry is made from the record as it stands in the pool after the catalog was read, and whoever adds to a
   record replaces the catalog afterwards: so the last one to replace it knew the whole record.
3. Of each page that is not what the catalog says, its state is noted; then the catalog is seen to be still the one the
   pages were made from; then the page is replaced if it is still in that state. So a page made from an older catalog
   takes no newer one's place. A publisher ends only when the catalog is still the one its pages were made from.

Killed between any two writes, it leaves in every page an old or a new list, and only files that are in the pool; the
next publisher finds the pages that lag behind, whatever it came to publish.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from packaging.utils import canonicalize_name

from hopperforge.errors import InputError, PublishError
from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.entries import Publication, make_entry
from hopperforge.index.joining import join_records, what_was_joined
from hopperforge.index.pages import METADATA_SUFFIX, RECORD_SUFFIX, SIGNATURE_SUFFIX
from hopperforge.index.whole import CATALOG_NAME, POOL, index_files
from hopperforge.model.record import Record
from hopperforge.provenance.envelope import covers
from hopperforge.store.targets import Held, Mark, Target, at_once, try_again

_NO_PACKAGES: Final = Catalog.of(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A package that was checked and may be published.

    `metadata` is its core metadata; `publication` says what its entry needs besides, `uploaded` being the time it gets
    if it is new there; `signature` is the signed statement beside it; `load` reads the wheel, and answers with the
    bytes of the record's sha256 or raises; `load_tarball` does so for the tarball that the record names, if it does.
    """

    record: Record
    metadata: bytes
    publication: Publication
    signature: bytes | None
    load: Callable[[], bytes]
    load_tarball: Callable[[], bytes] | None = None

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return self.record.wheel.file

    @property
    def path(self) -> str:
        """Where the wheel is, from the root of an index."""
        return f"{POOL}{canonicalize_name(self.record.name)}/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a package: it was new there, or not, and what was added to its record."""

    file: str
    new: bool
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publisher did: to each package, and how many pages it wrote of how many."""

    outcomes: tuple[Outcome, ...]
    written: int
    pages: int


def publish(target: Target, parcels: Sequence[Parcel]) -> Published:
    """Publish packages, and bring every page up to date, with no package too.

    PublishError, with every reason and before anything is listed, if a name is taken by other bytes.
    """
    with target.exclusive():
        catalog = read_catalog(target)
        _refuse_taken(target, catalog, parcels)
        known = {entry.path for entry in catalog.packages}
        outcomes = [_store(target, parcel, new=parcel.path not in known) for parcel in parcels]
        if parcels:
            _change_catalog(target, lambda catalog: _with_parcels(target, catalog, parcels))
        written, pages = _renew_pages(target)
    return Published(outcomes=tuple(outcomes), written=written, pages=pages)


def set_yanked(target: Target, file: str, reason: str | None) -> Published:
    """Mark a file as yanked for a reason, or with None as standing; InputError if the index has no such file."""

    def change(catalog: Catalog) -> Catalog:
        if file not in {entry.file for entry in catalog.packages}:
            raise InputError(
                f"{target.place} has no file {file}",
                detail=[entry.file for entry in catalog.packages][-10:],
                hint="yank takes the name of a file as the index lists it",
            )
        return Catalog.of(replace(entry, yanked=reason) if entry.file == file else entry for entry in catalog.packages)

    with target.exclusive():
        _change_catalog(target, change)
        written, pages = _renew_pages(target)
    return Published(outcomes=(), written=written, pages=pages)


def read_catalog(target: Target) -> Catalog:
    """The catalog of an index; one without packages if there is none yet."""
    held = target.fetch(CATALOG_NAME)
    return _NO_PACKAGES if held is None else _parsed(target, held.data)


def _parsed(target: Target, data: bytes) -> Catalog:
    return Catalog.from_json(data, f"{target.place}/{CATALOG_NAME}")


def _refuse_taken(target: Target, catalog: Catalog, parcels: Sequence[Parcel]) -> None:
    """Refuse names that are taken by other bytes, all at once."""
    entries = {entry.path: entry for entry in catalog.packages}
    clashes = at_once(lambda parcel: _clash(target, entries.get(parcel.path), parcel), parcels)
    _refuse([clash for clash in clashes if clash is not None])


def _refuse(clashes: Sequence[str]) -> None:
    if clashes:
        raise PublishError(
            "what is published keeps its bytes, and these names are taken by others",
            detail=clashes,
            hint="publish them under a new version, or to a new place; see docs/how-to/publish.md",
        )


def _clash(target: Target, entry: Entry | None, parcel: Parcel) -> str | None:
    """Say which bytes stand under the name of a package, if they are others.

    Bytes that the catalog names are not read again, as long as their size is right.
    """
    ours = parcel.record.wheel
    if entry is not None and entry.sha256 != ours.sha256:
        return f"{ours.file}: sha256 {entry.sha256} there, {ours.sha256} here"
    mark = target.mark(parcel.path)
    if mark is None or (entry is not None and mark.size == ours.size):
        return None
    return _standing_clash(target, parcel.path, ours.sha256)


def _standing_clash(target: Target, path: str, sha256: str) -> str | None:
    held = target.fetch(path)
    found = None if held is None else hashlib.sha256(held.data).hexdigest()
    return None if found in (None, sha256) else f"{path}: sha256 {found} there, {sha256} here"


def _store(target: Target, parcel: Parcel, *, new: bool) -> Outcome:
    """Put a package's files into the pool; what is there already, and is the same, is left."""
    if target.mark(parcel.path) is None:
        _create(target, parcel.path, parcel.load(), parcel.record.wheel.sha256)
    _store_tarball(target, parcel)
    name = parcel.path + METADATA_SUFFIX
    if not target.holds(name, target.mark(name), parcel.metadata):
        _create(target, name, parcel.metadata, hashlib.sha256(parcel.metadata).hexdigest())
    added = try_again(lambda: _join(target, parcel), target.place)
    if parcel.signature is not None:
        _store_signature(target, parcel, parcel.signature)
    return Outcome(file=parcel.file, new=new, added=() if new else added)


def _store_tarball(target: Target, parcel: Parcel) -> None:
    """Put the tarball beside the wheel; PublishError if other bytes have its name."""
    facts = parcel.record.tarball
    if facts is None or parcel.load_tarball is None:
        return
    path = f"{parcel.path.rpartition('/')[0]}/{facts.file}"
    if target.mark(path) is None:
        _create(target, path, parcel.load_tarball(), facts.sha256)
    elif (clash := _standing_clash(target, path, facts.sha256)) is not None:
        _refuse([clash])


def _create(target: Target, path: str, data: bytes, sha256: str) -> None:
    if not target.create(path, data):
        clash = _standing_clash(target, path, sha256)
        _refuse([] if clash is None else [clash])


def _store_signature(target: Target, parcel: Parcel, signature: bytes) -> None:
    """Put a signature beside the record it is over; PublishError if the one in the pool has grown since."""
    name = parcel.path + RECORD_SUFFIX
    held = target.fetch(name)
    if held is None or not covers(signature, file=parcel.file, record=held.data):
        raise PublishError(
            f"the signature beside {parcel.file} is not over the record that {target.place} has",
            detail=["somebody joined more to that record, or it was signed before the last change of ours"],
            hint=f"fetch {target.place}/{name} to the wheel's side, sign it, and publish again",
        )
    _overwrite(target, parcel.path + SIGNATURE_SUFFIX, signature)


def _overwrite(target: Target, path: str, data: bytes) -> None:
    def attempt() -> bool | None:
        mark = target.mark(path)
        return target.holds(path, mark, data) or target.replace(path, data, mark) or None

    try_again(attempt, target.place)


def _join(target: Target, parcel: Parcel) -> tuple[str, ...] | None:
    """Add our record to the one in the pool, and say what was added; None if another was quicker."""
    name = parcel.path + RECORD_SUFFIX
    held = target.fetch(name)
    if held is None:
        return () if target.create(name, parcel.record.to_json()) else None
    published = Record.from_json(held.data, f"{target.place}/{name}")
    if published.wheel.sha256 != parcel.record.wheel.sha256:
        raise PublishError(
            f"{target.place}/{name} is the record of other bytes than the file beside it",
            detail=[f"it says sha256 {published.wheel.sha256}, the file has {parcel.record.wheel.sha256}"],
        )
    joined = join_records(published, parcel.record)
    if joined != published and not target.replace(name, joined.to_json(), held.mark):
        return None
    return what_was_joined(published, joined)


def _with_parcels(target: Target, catalog: Catalog, parcels: Sequence[Parcel]) -> Catalog:
    """The catalog with an entry for each package, made from the record in the pool."""
    entries = {entry.path: entry for entry in catalog.packages}
    made = at_once(lambda parcel: _entry(target, entries.get(parcel.path), parcel), parcels)
    return Catalog.of((entries | {entry.path: entry for entry in made}).values())


def _entry(target: Target, old: Entry | None, parcel: Parcel) -> Entry:
    """The entry of a package; of one that was there before stays what its pages and its buyers rely on."""
    name = parcel.path + RECORD_SUFFIX
    held = target.fetch(name)
    record = parcel.record if held is None else Record.from_json(held.data, f"{target.place}/{name}")
    publication = replace(parcel.publication, attested=_attested(target, parcel, held))
    if old is not None:
        _refuse([] if old.sha256 == record.wheel.sha256 else [f"{old.file}: sha256 {old.sha256} there"])
        publication = replace(
            publication,
            default=old.default,  # another shelf would leave the pages of the old one behind
            uploaded=old.uploaded,
            yanked=old.yanked,
            sbom=old.sbom or publication.sbom,
            reproduced=tuple(sorted({*old.reproduced, *publication.reproduced})),
        )
    return make_entry(record, parcel.metadata, publication)


def _attested(target: Target, parcel: Parcel, record: Held | None) -> bool:
    """Whether the pool has a signature over the record as it stands there."""
    signature = target.fetch(parcel.path + SIGNATURE_SUFFIX)
    return record is not None and signature is not None and covers(signature.data, file=parcel.file, record=record.data)


def _change_catalog(target: Target, change: Callable[[Catalog], Catalog]) -> None:
    """Replace the catalog by what `change` makes of it, again and again until nobody came between."""

    def attempt() -> bool | None:
        held = target.fetch(CATALOG_NAME)
        data = change(_NO_PACKAGES if held is None else _parsed(target, held.data)).to_json()
        if held is not None and held.data == data:
            return True
        return target.replace(CATALOG_NAME, data, None if held is None else held.mark) or None

    try_again(attempt, target.place)


def _renew_pages(target: Target) -> tuple[int, int]:
    """Bring every page up to date with the catalog; say how many were written, and how many there are."""
    written: set[str] = set()

    def attempt() -> int | None:
        held = target.fetch(CATALOG_NAME)
        if held is None:
            return 0
        files = index_files(_parsed(target, held.data))
        seen = dict(zip(files, at_once(target.mark, list(files)), strict=True))
        lagging = [name for name in files if not target.holds(name, seen[name], files[name])]
        if target.mark(CATALOG_NAME) != held.mark:
            return None
        done = _write(target, {name: files[name] for name in lagging}, seen)
        written.update(done)
        # the second look: a page that was changed and changed back in between has the state we noted
        return len(files) if len(done) == len(lagging) and target.mark(CATALOG_NAME) == held.mark else None

    pages = try_again(attempt, target.place)
    return len(written), pages


def _write(target: Target, files: Mapping[str, bytes], seen: Mapping[str, Mark | None]) -> list[str]:
    """Replace files that are still as seen, and name them: the deepest first, for the others lead to them."""
    done: list[str] = []
    for level in _levels(files):
        answers = at_once(lambda name: target.replace(name, files[name], seen[name]), level)
        done += [name for name, answer in zip(level, answers, strict=True) if answer]
        if not all(answers):
            break
    return done


def _levels(names: Iterable[str]) -> list[list[str]]:
    ordered = sorted(names, key=_depth)
    return [list(level) for _, level in groupby(ordered, key=_depth)]


def _depth(name: str) -> int:
    return -name.count("/")
