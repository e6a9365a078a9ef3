"""Verbs that prove a package to others: building it again with the same bytes, signing it, and judging a signature."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from hopperforge.config.request import parse_count, parse_keyed, parse_words
from hopperforge.errors import InputError
from hopperforge.model.image import tool_versions
from hopperforge.model.keys import JsonValue
from hopperforge.model.record import REPRODUCTION, Record, Reproduction
from hopperforge.provenance.comparison import compare_records, rebuild_words
from hopperforge.run.download import download_unpinned, without_credentials
from hopperforge.run.files import make_folder, sha256_file, temporary_folder, write_atomic
from hopperforge.run.machine import read_machine
from hopperforge.stages.attest import Signed, check_signed, check_signed_tarball, make_keys, read_keys, sign_package
from hopperforge.stages.rebuild import (
    FIRST,
    PLAIN,
    SECOND,
    Rebuilt,
    copy_project,
    different_members,
    diffoscope,
    keep_for_a_look,
    other_writers,
    rebuild,
    refusal,
)
from hopperforge.stages.tarball import SUFFIX as TARBALL_SUFFIX
from hopperforge.store.wheelhouse import RECORD_SUFFIX, Wheelhouse
from hopperforge.verbs import Call

KEY_VARIABLE: Final = "HOPPERFORGE_SIGNING_KEY"
"""Names the file with the private key, so that the place need not stand in a command."""

_NEW: Final = "new"
_DAYS: Final = 730
_MOST_DAYS: Final = 36_500
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_TWICE: Final = "twice"
_WORDS: Final = frozenset({"wheel", "by", "objects", "engine", "jobs", "memory"})
_ADDRESSES: Final = ("https", "http")


def reproduce(call: Call) -> None:
    """Build a package again from its record alone and compare; or build anything twice under other conditions."""
    if call.words[:1] == (_TWICE,):
        _twice(call, call.words[1:])
        return
    words = parse_keyed(call.words, _WORDS)
    if "wheel" not in words:
        raise InputError(
            "which wheel? the word wheel= is missing",
            hint="nox -s reproduce -- wheel=wheelhouse/NAME.whl, or twice profile=hdim128-bf16",
        )
    objects = _objects(words.get("objects", "new"))
    with _place(call) as folder:
        wheel, record = _at_hand(call, words["wheel"], folder)
        asked = (*_overruled(rebuild_words(record), words), *_limits(words))
        parse_words(asked, call.project())  # a record of another checkout may name what this one does not have
        _check_writers(call, record)
        call.workspace.reporter.stage("rebuild", " ".join(asked))
        made = rebuild(
            asked,
            PLAIN,
            folder=make_folder(folder / "again"),
            project=call.workspace.project,
            workspace=call.workspace,
            objects=objects,
        )
        _compare(call, Rebuilt(path=wheel, record=record), made)
        if objects:
            call.answer(f"{wheel.name}: the same bytes, bound again from the objects at hand: {record.wheel.sha256}")
            call.answer("the record names no rebuild, for nothing was compiled: leave objects=cached out for that")
            return
        entry = Reproduction(created=call.now(), machine=_machine(call), engine=made.record.engine, by=words.get("by"))
        _tell(call, words["wheel"], record, entry)


def _check_writers(call: Call, record: Record) -> None:
    """Refuse at once what cannot come out the same, for other versions write the wheel's bytes here; InputError."""
    images = call.project().images
    lines = other_writers(record, tool_versions(images.tools) if images else {})
    if lines:
        commit = record.made_by.commit if record.made_by else None
        raise InputError(
            f"{record.wheel.file} was written by other tools than those here, so its bytes cannot come again",
            detail=lines,
            hint=f"git switch --detach {commit or 'COMMIT'}   # what made it pins the versions it needs",
        )


def _objects(text: str) -> bool:
    if text not in ("new", "cached"):
        raise InputError(f"objects={text}: there is new, which compiles, and cached, which only binds again")
    return text == "cached"


def _limits(words: Mapping[str, str]) -> list[str]:
    return [f"{key}={words[key]}" for key in ("jobs", "memory") if key in words]


def _overruled(words: Sequence[str], by: Mapping[str, str]) -> list[str]:
    """Take another container engine than the record's where one is asked for: the bytes are to be the same."""
    if "engine" not in by:
        return list(words)
    kept = [word for word in words if not word.startswith("engine=")]
    return [*kept, f"engine={by['engine']}"]


@contextlib.contextmanager
def _place(call: Call) -> Iterator[Path]:
    """Give a new folder for everything that is made; it goes at the end."""
    with temporary_folder(make_folder(call.workspace.work), "reproduce") as folder:
        yield folder


def _at_hand(call: Call, wheel: str, folder: Path) -> tuple[Path, Record]:
    """Give the wheel and its record, fetched if it is an address; InputError if they do not belong together."""
    path = Path(wheel)
    if urlsplit(wheel).scheme in _ADDRESSES:
        path = make_folder(folder / "given") / file_of(wheel)
        for suffix in ("", RECORD_SUFFIX):
            download_unpinned(beside(wheel, suffix), path.with_name(path.name + suffix), call.workspace)
    place = path.with_name(path.name + RECORD_SUFFIX)
    for needed in (path, place):
        if not needed.is_file():
            raise InputError(f"there is no file {needed}", hint="a wheel is reproduced from the record beside it")
    record = Record.from_json(place.read_bytes(), str(place))
    if record.wheel.sha256 != sha256_file(path):
        raise InputError(f"{place} is the record of another file: it names the sha256 {record.wheel.sha256}")
    return path, record


def file_of(address: str) -> str:
    """Name the file of an address, in which a plus may be written as %2B; InputError if it is no wheel's."""
    name = Path(unquote(urlsplit(address).path)).name
    if not name.endswith(".whl"):
        raise InputError(f"{without_credentials(address)} is not the address of a wheel: its name ends in .whl")
    return name


def beside(address: str, suffix: str) -> str:
    """Give the address of the file whose name goes on with `suffix`; a hash behind # is left out, as it is not sent."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=parts.path + suffix, fragment=""))


def _machine(call: Call) -> str:
    machine = read_machine(call.workspace.environ)
    cores = min(limit.value for limit in machine.cores)
    return f"{machine.architecture}, {cores} cores, glibc {call.glibc or 'unknown'}"


def _compare(call: Call, before: Rebuilt, after: Rebuilt) -> None:
    """Refuse what came out with other bytes, by the first stage that differs; GateError with all that is known."""
    if (before.record.wheel.sha256, before.record.tarball) == (after.record.wheel.sha256, after.record.tarball):
        return
    differences = [str(difference) for difference in compare_records(before.record, after.record)]
    members = different_members(before.path, after.path)
    guilty = next((line for line in differences if not line.startswith(("front", "repair", "wheel"))), members[0])
    kept = keep_for_a_look(after, call.workspace)
    passing = before.path.is_relative_to(call.workspace.work)  # it goes with its folder
    first = keep_for_a_look(before, call.workspace, "before") if passing else before.path
    report = diffoscope(first, kept, call.workspace)
    raise refusal(before.path.name, guilty, [*differences, *members, *_other_tool(before, after), *report], kept)


def _other_tool(before: Rebuilt, after: Rebuilt) -> list[str]:
    """Say so if it was built by a hopperforge of another commit: its recipes and patches may be others."""
    one, other = before.record.made_by, after.record.made_by
    if one is None or other is None or one == other:
        return []
    return [f"built by hopperforge {one.version} of commit {one.commit}, and now by commit {other.commit}"]


def _tell(call: Call, wheel: str, record: Record, entry: Reproduction) -> None:
    """Join the entry to the record beside a file; write it down for whoever keeps the record of an address."""
    call.answer(f"{record.wheel.file}: reproduced, {record.wheel.sha256}")
    if urlsplit(wheel).scheme not in _ADDRESSES:
        path = Path(wheel)
        Wheelhouse(path.parent, call.workspace.reporter).join_reproduction(record.wheel.sha256, entry)
        call.answer(f"{path.name}{RECORD_SUFFIX}: the record says so: {entry}")
        return
    place = call.workspace.wheelhouse / f"{record.wheel.file}.reproduced.json"
    document: dict[str, JsonValue] = {
        "sha256": record.wheel.sha256,
        REPRODUCTION: {"created": entry.created, "machine": entry.machine, "engine": entry.engine, "by": entry.by},
    }
    write_atomic(place, json.dumps(document, indent=2).encode() + b"\n")
    call.answer(f"{place}: for the record's keeper, who joins it with `nox -s record -- {place.name}`")


def sign(call: Call) -> None:
    """Sign a package, or make the keys for it with key=new; a private key is read from a file and never shown."""
    words = parse_keyed(call.words, frozenset({"wheel", "key", "folder", "name", "days"}))
    if words.get("key") == _NEW:
        _make_keys(call, words)
        return
    key = words.get("key") or call.workspace.environ.get(KEY_VARIABLE)
    wheel, extra = words.get("wheel"), [f"{word}=" for word in ("folder", "name", "days") if word in words]
    if wheel is None or not key or extra:
        wrong = f"{', '.join(extra)} is for key=new" if extra else "sign takes wheel= and key="
        raise InputError(
            wrong, hint=f"nox -s sign -- wheel=FILE key=NAME.private.pem, or export {KEY_VARIABLE}=NAME.private.pem"
        )
    place = sign_package(Path(wheel), Path(key))
    call.answer(f"{place}: signed")


def _make_keys(call: Call, words: Mapping[str, str]) -> None:
    if "folder" not in words or "wheel" in words:
        raise InputError("key=new takes folder=, and name= and days= if you like", hint="key=new folder=~/keys")
    name, days = words.get("name", "release"), words.get("days", str(_DAYS))
    if not _KEY_NAME.fullmatch(name):
        raise InputError(f"name={name}: letters, digits, dots and hyphens make a key's name", hint="name=release-2026")
    try:
        count = parse_count(days)
    except ValueError as error:
        raise InputError(f"days={days}: {error}", hint=f"days={_DAYS}") from error
    now = datetime.fromisoformat(call.now())
    private, public = make_keys(Path(words["folder"]).expanduser(), name, now=now, days=min(count, _MOST_DAYS))
    call.answer(f"{private}: the private key; who has it can sign as you, so keep it off machines that build")
    call.answer(f"{public}: the public key; hand it to those who verify, on another way than the wheels")


def check(call: Call, words: Mapping[str, str]) -> None:
    """Judge a package by its signature with the keys named; nothing of it is imported."""
    others = sorted(words.keys() - {"wheel", "key"})
    if others:
        raise InputError(
            f"key= judges a package without importing it, so {others[0]}= does not go with it",
            hint="two commands: first wheel=FILE key=PUBLIC.pem, then wheel=FILE torch=2.9",
        )
    if "wheel" not in words:
        raise InputError("which wheel? the word wheel= is missing", hint="wheel=FILE key=PUBLIC.pem")
    path, keys, now = Path(words["wheel"]), read_keys(words["key"]), datetime.fromisoformat(call.now())
    alone = path.name.endswith(TARBALL_SUFFIX)
    found = check_signed_tarball(path, keys, now=now) if alone else check_signed(path, keys, now=now)
    call.answer(f"{found.path.name}: signed by {', '.join(map(str, found.keys))}")
    for line in _of_tarball(found) if alone else _of_wheel(found):
        call.answer(f"  {line}")
    for rebuilt in found.record.reproduced:
        call.answer(f"  reproduced: {rebuilt}")


def _of_wheel(found: Signed) -> Iterator[str]:
    record = found.record
    yield f"sha256 {record.wheel.sha256}, as the record and the signature say"
    yield f"{len(record.gates)} gates passed, bill of materials and licences are those of the record"
    if record.tarball is not None:
        said = f"sha256 {record.tarball.sha256}, likewise" if found.tarball else "not beside the wheel, and not judged"
        yield f"tarball {record.tarball.file}: {said}"


def _of_tarball(found: Signed) -> Iterator[str]:
    record = found.record
    if record.tarball is not None:
        yield f"sha256 {record.tarball.sha256}, as the record and the signature say"
    yield f"{len(record.gates)} gates passed, one of which compared it with the wheel {record.wheel.file}"


def _twice(call: Call, words: Sequence[str]) -> None:
    """Build the same request in two places, under all conditions that should not matter, and compare."""
    parse_words(words, call.project())
    with _place(call) as folder:
        # both checkouts before the first build: what is edited meanwhile must not come between them
        places = [
            (conditions, copy_project(call.workspace.project, folder / conditions.name / "project", private=private))
            for conditions, private in ((FIRST, False), (SECOND, True))
        ]
        made = []
        for conditions, project in places:
            call.workspace.reporter.stage("rebuild", conditions.name)
            limited = [*words, "jobs=1"] if conditions.cores and not _gives_jobs(words) else words
            made.append(rebuild(limited, conditions, folder=project.parent, project=project, workspace=call.workspace))
        _compare(call, *made)
        call.answer(f"{made[0].path.name}: twice the same bytes, {made[0].record.wheel.sha256}")
        call.answer("other paths, umask, cores, order, locale, time zone, hash seed, user name, and another time")


def _gives_jobs(words: Sequence[str]) -> bool:
    return any(word.startswith("jobs=") for word in words)
