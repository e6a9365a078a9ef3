"""Verbs about indexes: publishing what the wheelhouse has, copying between indexes, and taking back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hopperforge.config.request import parse_keyed
from hopperforge.errors import InputError
from hopperforge.index.catalog import Catalog, Entry
from hopperforge.model.place import StorePlace
from hopperforge.stages.parcels import Candidate, from_index, from_wheelhouse, named, sort_out
from hopperforge.stages.publish import Outcome, Parcel, Published, read_catalog, set_yanked
from hopperforge.stages.publish import publish as publish_parcels
from hopperforge.store.targets import Rehearsal, Target, at_once, open_target
from hopperforge.verbs import Call
from hopperforge.verbs_upload import WORDS as SERVER_WORDS
from hopperforge.verbs_upload import is_server, upload_packages

_WORDS: Final = frozenset({"to", "from", "promote", "wheel", "yank", "unyank", "reason"}) | SERVER_WORDS
_COLON: Final = re.compile(r":(?!//)")
_EXAMPLE: Final = "nox -s publish -- to=/srv/index"


def publish(call: Call) -> None:
    """Do what the words say: publish from the wheelhouse, promote from another index, yank or unyank."""
    words = _words(call.words)
    if is_server(words["to"]):
        upload_packages(call, words)
        return
    target = _target(call, words["to"])
    call.workspace.reporter.stage("publish", target.place)
    if "yank" in words:
        _say(call, set_yanked(target, words["yank"], words["reason"]), [f"{words['yank']}: yanked: {words['reason']}"])
    elif "unyank" in words:
        _say(call, set_yanked(target, words["unyank"], None), [f"{words['unyank']}: stands again"])
    elif "from" in words:
        _promote(call, words, target)
    else:
        _publish(call, words, target)


def _words(given: Sequence[str]) -> Mapping[str, str]:
    """Read the words; promote=A:B becomes from=A to=B."""
    words = parse_keyed(given, _WORDS)
    if "promote" in words:
        if "to" in words or "from" in words:
            raise InputError("promote= names both indexes, so to= and from= do not go with it", hint="from=A to=B")
        source, target = split_promotion(words.pop("promote"))
        words |= {"from": source, "to": target}
    if "to" not in words:
        raise InputError("publish where? the word to= is missing", hint=_EXAMPLE)
    servers_own = sorted(SERVER_WORDS & words.keys())
    if servers_own and not is_server(words["to"]):
        raise InputError(
            f"{servers_own[0]}= is for upload servers, which have one flat index; this one has a page for each",
            hint=_EXAMPLE,
        )
    doing = [key for key in ("yank", "unyank", "from") if key in words]
    if len(doing) > 1 or ("wheel" in words and {"yank", "unyank"} & words.keys()):
        given_words = ", ".join(f"{key}=" for key in words if key != "to")
        raise InputError(f"{given_words} do not go together: one thing at a time", hint=_EXAMPLE)
    if ("yank" in words) != ("reason" in words):
        raise InputError("yank= and reason= go together: whoever meets the file is told why", hint='reason="too slow"')
    return words


def split_promotion(text: str) -> tuple[str, str]:
    """Split "A:B" where both are places; InputError unless there is one way to do so.

    A colon before two slashes belongs to a place. No bucket's place has another, but a folder's may.
    """
    ends = [found.start() for found in _COLON.finditer(text)]
    if len(ends) == 1 and text[: ends[0]] and text[ends[0] + 1 :]:
        return text[: ends[0]], text[ends[0] + 1 :]
    raise InputError(
        f"promote={text} is not two places with one colon between them",
        hint="promote=/srv/staging:/srv/prod, or from=/srv/staging to=/srv/prod",
    )


def _place(key: str, text: str) -> StorePlace:
    """Read a place; a folder may be relative to where we are."""
    try:
        return StorePlace.parse(text if "://" in text else str(Path(text).absolute()))
    except ValueError as error:
        raise InputError(f"{key}=: {error}", hint=_EXAMPLE) from error


def _target(call: Call, text: str) -> Target:
    target = open_target(_place("to", text), call.workspace)
    return Rehearsal(target) if call.dry_run else target


def _publish(call: Call, words: Mapping[str, str], target: Target) -> None:
    project, moment = call.project(), call.now()
    packages = call.wheelhouse().packages()
    if "wheel" in words:
        packages = named(packages, words["wheel"].split(","))
    candidates = [from_wheelhouse(package, project, moment) for package in packages]
    _deliver(call, words, target, candidates)


def _promote(call: Call, words: Mapping[str, str], target: Target) -> None:
    source = open_target(_place("from", words["from"]), call.workspace)
    offered, standing, moment = read_catalog(source), read_catalog(target), call.now()
    entries = [entry for entry in _chosen(offered, words.get("wheel"), source.place) if _lacks(standing, entry)]
    yanked = [entry for entry in entries if entry.yanked is not None and "wheel" not in words]
    call.workspace.reporter.note(f"{source.place} has {len(offered.packages)} packages, {len(entries)} not as here")
    for entry in yanked:
        call.answer(f"{entry.file}: left out: yanked there: {entry.yanked}")
    candidates = at_once(
        lambda entry: from_index(source, entry, moment), [entry for entry in entries if entry not in yanked]
    )
    _deliver(call, words, target, candidates)


def _chosen(catalog: Catalog, wheels: str | None, place: str) -> list[Entry]:
    if wheels is None:
        return list(catalog.packages)
    names = wheels.split(",")
    lacking = sorted(set(names) - {entry.file for entry in catalog.packages})
    if lacking:
        raise InputError(f"{place} has no file {', '.join(lacking)}", hint="wheel=NAME.whl, as that index lists it")
    return [entry for entry in catalog.packages if entry.file in names]


def _lacks(standing: Catalog, entry: Entry) -> bool:
    """Whether a catalog lacks what an entry of another says; since when, and whether yanked, is each one's own."""
    found = {known.path: known for known in standing.packages}.get(entry.path)
    return found is None or replace(found, uploaded=entry.uploaded, yanked=entry.yanked) != entry


def _deliver(call: Call, words: Mapping[str, str], target: Target, candidates: Sequence[Candidate]) -> None:
    parcels, left_out = sort_out(candidates, asked="wheel" in words, allow_unproven=call.allow_unproven)
    if not parcels and not read_catalog(target).packages:
        raise InputError(
            f"there is nothing to publish, and nothing was ever published to {target.place}",
            hint="nox -s build -- cuda=13.0   # then nox -s smoke, and publish",
        )
    done = publish_parcels(target, parcels)
    by_file = {parcel.file: parcel for parcel in parcels}
    said = [_line(outcome, by_file[outcome.file], dry_run=call.dry_run) for outcome in done.outcomes]
    _say(call, done, [*(f"left out: {reason}" for reason in left_out), *said])


def _line(outcome: Outcome, parcel: Parcel, *, dry_run: bool) -> str:
    wheel = parcel.record.wheel
    if outcome.new:
        done = "would be published" if dry_run else "published"
        return f"{outcome.file}: {done}: {wheel.size / 1e6:.2f} MB, sha256 {wheel.sha256}"
    if outcome.added:
        done = "would be added" if dry_run else "added"
        return f"{outcome.file}: there already, the same bytes; {done} to its record: {', '.join(outcome.added)}"
    return f"{outcome.file}: there already, the same bytes: skipped"


def _say(call: Call, done: Published, lines: Sequence[str]) -> None:
    written = "would be written" if call.dry_run else "written"
    call.answer("\n".join([*lines, f"{done.written} of {done.pages} pages {written}"]))
