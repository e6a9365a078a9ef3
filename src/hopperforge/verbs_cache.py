"""The verb about the object stores: what is in them, whether it is whole, sharing it, and making this one smaller."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hopperforge.config.problems import perhaps
from hopperforge.config.request import parse_size
from hopperforge.console import grid
from hopperforge.errors import InputError, SourceError
from hopperforge.model.record import Record
from hopperforge.store.objects import ObjectStore
from hopperforge.store.packs import check_pack, pack_sizes
from hopperforge.store.shared import local_objects, open_shared
from hopperforge.store.trimming import PACKS, trim
from hopperforge.verbs import Call

_COLUMNS: Final = ("store", "what", "for", "count", "size")
_UNKNOWN: Final = "no record of this wheelhouse"


def cache(call: Call) -> None:
    """Do what the one word says: stats, verify, share or trim=SIZE."""
    word, equals, value = call.words[0].partition("=") if len(call.words) == 1 else ("", "", "")
    if word == "trim" and value:
        _trim(call, value)
    elif word in _WORDS and not equals:
        _WORDS[word](call)
    else:
        given = " ".join(call.words)
        known = (*_WORDS, "trim")
        what = f'"{given}" is none{perhaps(word, known)}' if given else "none was given"
        raise InputError(
            f"cache takes one of {', '.join(_WORDS)} and trim=SIZE; {what}",
            hint="nox -s cache -- trim=20GB" if word == "trim" else "nox -s cache -- stats",
        )


def _stats(call: Call) -> None:
    """Show objects and packs by what they were compiled for, as far as the wheelhouse's records tell."""
    records = call.wheelhouse().records()
    local = call.workspace.store
    rows = _rows("this machine", "objects", _local(call).sizes(), _served(records, packs=False))
    rows += _rows("this machine", "packs", pack_sizes(local / PACKS), _served(records, packs=True))
    shared = _shared(call)
    if shared is not None:
        rows += _rows(str(call.workspace.shared), "objects", shared.sizes(), _served(records, packs=False))
    call.answer("\n".join([f"this machine's store is {local}", *grid(_COLUMNS, rows)]))


def _rows(store: str, what: str, sizes: Mapping[str, int], served: Mapping[str, str]) -> list[tuple[str, ...]]:
    """One row for each thing the keys were made for, and one for all where that is more than one."""
    groups: dict[str, list[int]] = {}
    for key, size in sorted(sizes.items(), key=lambda item: (served.get(item[0], _UNKNOWN), item[0])):
        groups.setdefault(served.get(key, _UNKNOWN), []).append(size)
    if len(groups) != 1:
        groups["all"] = list(sizes.values())
    return [(store, what, label, str(len(found)), _megabytes(sum(found))) for label, found in groups.items()]


def _served(records: Sequence[Record], *, packs: bool) -> Mapping[str, str]:
    """Name what each key of an object, or of a pack, was made for: several where several packages have it in."""
    found: dict[str, set[str]] = {}
    for record in records:
        if record.pack is not None and record.toolkit is not None:
            label = f"{record.recipe}/{record.profile} CUDA {record.toolkit.version}"
            for key in [record.pack.key] if packs else [unit.key for unit in record.pack.units]:
                found.setdefault(key, set()).add(label)
    return {key: ", ".join(sorted(labels)) for key, labels in found.items()}


def _verify(call: Call) -> None:
    """Hash every object and pack again; damaged ones are reported and removed, and make the command fail."""
    damaged = _check(call, "this machine", _local(call))
    folder = call.workspace.store / PACKS
    packs = pack_sizes(folder)
    broken = [key for key in packs if check_pack(folder, key, call.workspace.reporter) is None]
    call.answer(f"this machine: {len(packs)} packs read, {len(broken)} damaged")
    damaged += len(broken)
    shared = _shared(call)
    if shared is not None:
        damaged += _check(call, str(call.workspace.shared), shared)
    if damaged:
        raise SourceError(
            f"{damaged} of the cached objects and packs were damaged and are gone",
            hint="build again: what is missing is compiled again",
        )


def _check(call: Call, name: str, store: ObjectStore) -> int:
    keys = store.sizes()
    damaged = sum(store.check(key) is None for key in keys)
    call.answer(f"{name}: {len(keys)} objects read, {damaged} damaged")
    return damaged


def _share(call: Call) -> None:
    """Put into the shared store what this machine has and it lacks: compiled before there was one, or in an outage."""
    shared = _shared(call)
    if shared is None:
        raise InputError(
            "there is no shared store: HOPPERFORGE_STORE is not set", hint="export HOPPERFORGE_STORE=s3://bucket/prefix"
        )
    local = _local(call)
    lacking = local.sizes().keys() - shared.sizes().keys()
    loaded = (local.check(key) for key in sorted(lacking))
    put = [shared.put(entry.key, data, path=entry.path, cost=entry.cost) for entry, data in filter(None, loaded)]
    size = _megabytes(sum(entry.size for entry in put))
    call.answer(f"{call.workspace.shared}: {len(put)} objects put, {size}")


def _trim(call: Call, value: str) -> None:
    """Make this machine's store at most so large, what was used longest ago first."""
    try:
        limit = parse_size(value)
    except ValueError as error:
        raise InputError(f"trim={value}: {error}", hint="nox -s cache -- trim=20GB") from error
    done = trim(call.workspace.store, limit, call.workspace.reporter)
    call.answer(
        f"removed {done.objects} objects and {done.packs} packs, {_megabytes(done.freed)};"
        f" {_megabytes(done.left)} are left in {call.workspace.store}"
    )
    if done.left > limit:
        call.workspace.reporter.warn(f"running builds need {_megabytes(done.in_use)} of it; trim again when they ended")


def _local(call: Call) -> ObjectStore:
    return ObjectStore.local(local_objects(call.workspace), call.workspace.reporter)


def _shared(call: Call) -> ObjectStore | None:
    place = call.workspace.shared
    return None if place is None else open_shared(place, call.workspace.environ, call.workspace.reporter)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


_WORDS: Final[Mapping[str, Callable[[Call], None]]] = {"stats": _stats, "verify": _verify, "share": _share}
