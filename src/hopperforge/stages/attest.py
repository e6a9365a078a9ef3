"""Signing a finished package, and judging one by its signature before anything of it is run.

Beside a wheel lie its record and, in `<wheel>.dsse.json`, the signature over both. A tarball is signed through the
record, which names its sha256.
"""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hopperforge.errors import GateError, InputError, RepairError, TrustError
from hopperforge.index.proof import missing_gates
from hopperforge.model.record import Record
from hopperforge.provenance.contents import Contents
from hopperforge.provenance.envelope import open_envelope, sign
from hopperforge.provenance.keys import PublicKey, make_key_pair, read_signer
from hopperforge.provenance.statement import make_statement, read_statement, statement_problems
from hopperforge.run.files import make_folder, sha256_file, write_atomic, write_secret
from hopperforge.stages.gates import record_gate
from hopperforge.stages.gates_contents import licences_gate, sbom_gate
from hopperforge.stages.wheel_archive import read_wheel
from hopperforge.store.wheelhouse import RECORD_SUFFIX, SIGNATURE_SUFFIX

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A package whose signature, hashes, record, bill of materials and gates were all found good.

    `path` is the file that was judged, `tarball` the one that was judged with a wheel, None where there is none.
    """

    path: Path
    record: Record
    keys: tuple[PublicKey, ...]
    tarball: Path | None = None


def signature_path(wheel: Path) -> Path:
    """Where a wheel's signature lies."""
    return wheel.with_name(wheel.name + SIGNATURE_SUFFIX)


def make_keys(folder: Path, name: str, *, now: datetime, days: int) -> tuple[Path, Path]:
    """Make a pair of keys in a folder; gives the private file, readable by its owner alone, and the public one."""
    private, public = (folder / f"{name}.{kind}.pem" for kind in ("private", "public"))
    for place in (private, public):
        if place.exists():
            raise InputError(f"{place} is there already, and a key is never replaced", hint="name=ANOTHER")
    secret, open_text = make_key_pair(name, now=now, days=days)
    make_folder(folder)
    write_secret(private, secret)
    write_atomic(public, open_text)
    return private, public


def sign_package(wheel: Path, private: Path) -> Path:
    """Sign a wheel and the record beside it; gives the signature's file.

    Refused are a key that others can read (InputError), and a package that its own record does not prove (GateError).
    """
    signer = read_signer(_secret(private), str(private))
    _require_there(wheel)
    record, data = _read_record(wheel)
    problems = [*package_problems(wheel, record), *_tarball_problems(wheel, record)]
    if problems:
        raise GateError(f"{wheel.name} is not signed, for its record does not prove it", detail=problems)
    envelope = sign(make_statement(record, data, key_id=signer.public_key.keyid), signer)
    write_atomic(signature_path(wheel), envelope)
    return signature_path(wheel)


def _secret(private: Path) -> bytes:
    if not private.is_file():
        raise InputError(f"there is no key {private}", hint="nox -s sign -- key=new folder=FOLDER   # makes a pair")
    if private.stat().st_mode & _OTHERS:
        raise InputError(f"the private key {private} can be read by others", hint=f"chmod 600 {private}")
    return private.read_bytes()


def read_keys(places: str) -> list[PublicKey]:
    """Read the public keys whose files are named, joined by commas; InputError names the first that is none."""
    return [_public_key(Path(place).expanduser()) for place in places.split(",")]


def _public_key(place: Path) -> PublicKey:
    try:
        return PublicKey.parse(place.read_text(encoding="utf-8"), str(place))
    except OSError as error:
        raise InputError(f"the key {place} cannot be read: {error.strerror}", hint="key=NAME.public.pem") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is no public key: it is not text", hint="key=NAME.public.pem") from error


def check_signed(wheel: Path, keys: Sequence[PublicKey], *, now: datetime) -> Signed:
    """Judge a package by its signature and everything that is signed; nothing of it is imported.

    The tarball that the record names is judged with it where it lies beside the wheel. TrustError for a signature that
    is missing, unknown, expired, or over other bytes; GateError where what is signed does not prove the package.
    """
    _require_there(wheel)
    record, holding, problems = _signed_record(wheel, keys, now, wheel.name)
    tarball = _tarball_beside(wheel, record)
    problems += [*_other_bytes(wheel, record.wheel.sha256), *_tarball_problems(wheel, record)]
    if problems:
        raise TrustError(f"the signature beside {wheel.name} is not over what is here", detail=problems)
    unproven = package_problems(wheel, record)
    if unproven:
        raise GateError(f"{wheel.name} is signed, and yet not proven", detail=unproven)
    return Signed(path=wheel, record=record, keys=holding, tarball=tarball)


def check_signed_tarball(tarball: Path, keys: Sequence[PublicKey], *, now: datetime) -> Signed:
    """Judge a tarball by the signature over the record beside it that names it; the wheel itself need not be there.

    What is raised is as in `check_signed`; InputError where no record beside it names it.
    """
    wheel = _wheel_of(tarball)
    record, holding, problems = _signed_record(wheel, keys, now, tarball.name)
    problems += _tarball_problems(wheel, record)
    if problems:
        raise TrustError(f"the signature beside {tarball.name} is not over what is here", detail=problems)
    unproven = _gate_problems(record)
    if unproven:
        raise GateError(f"{tarball.name} is signed, and yet not proven", detail=unproven)
    return Signed(path=tarball, record=record, keys=holding)


def _wheel_of(tarball: Path) -> Path:
    """Say where the wheel of a tarball lies, or would: its record's name says."""
    if not tarball.is_file():
        raise InputError(f"there is no file {tarball}", hint="a tarball, its record and its signature lie together")
    for place in sorted(tarball.parent.glob(f"*.whl{RECORD_SUFFIX}")):
        facts = Record.from_json(place.read_bytes(), str(place)).tarball
        if facts is not None and facts.file == tarball.name:
            return place.with_name(place.name.removesuffix(RECORD_SUFFIX))
    raise InputError(
        f"no record beside {tarball.name} names it",
        hint="fetch the wheel's .json and .dsse.json from where the tarball came from",
    )


def _tarball_beside(wheel: Path, record: Record) -> Path | None:
    """Find the tarball that a record names; None where it names none, or where it is not beside the wheel."""
    if record.tarball is None:
        return None
    place = wheel.with_name(Path(record.tarball.file).name)
    return place if place.is_file() else None


def _tarball_problems(wheel: Path, record: Record) -> list[str]:
    place = _tarball_beside(wheel, record)
    return [] if place is None or record.tarball is None else _other_bytes(place, record.tarball.sha256)


def _other_bytes(path: Path, signed: str) -> list[str]:
    digest = sha256_file(path)
    return [] if digest == signed else [f"{path.name} has the sha256 {digest}, and {signed} is signed"]


def _signed_record(
    wheel: Path, keys: Sequence[PublicKey], now: datetime, judged: str
) -> tuple[Record, tuple[PublicKey, ...], list[str]]:
    """Read the record beside a wheel, who signed it, and what of it is not as signed; `judged` is the file asked of."""
    place = signature_path(wheel)
    if not place.is_file():
        raise TrustError(
            f"{judged} is not signed, and a signature was asked for",
            detail=[f"there is no {place}"],
            hint="fetch it from where the wheel came from; an unsigned package is never taken for a signed one",
        )
    record, data = _read_record(wheel)
    payload, holding = open_envelope(place.read_bytes(), keys, now=now)
    try:
        statement = read_statement(payload)
    except ValueError as error:
        raise TrustError(f"what is signed beside {judged} is no statement of ours: {error}") from error
    problems = statement_problems(
        statement, record, hashlib.sha256(data).hexdigest(), key_ids=[key.key_id for key in holding]
    )
    return record, holding, problems


def _read_record(wheel: Path) -> tuple[Record, bytes]:
    place = wheel.with_name(wheel.name + RECORD_SUFFIX)
    _require_there(place)
    data = place.read_bytes()
    return Record.from_json(data, str(place)), data


def _require_there(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="a wheel, its record and its signature lie together")


def package_problems(wheel: Path, record: Record) -> list[str]:
    """List what keeps a record from proving a wheel: other bytes, a gate failed or missing, other contents."""
    facts = record.wheel
    problems = [f"the record names the file {facts.file}"] if facts.file != wheel.name else []
    if sha256_file(wheel) != facts.sha256:
        return [*problems, f"the record names the sha256 {facts.sha256}, which the wheel does not have"]
    problems += _gate_problems(record)
    try:
        archive = read_wheel(wheel)
    except RepairError as error:
        return [*problems, error.sentence]
    contents = Contents.of(record)
    again = (
        record_gate(archive),
        sbom_gate(archive, contents=contents),
        licences_gate(archive, licences=contents.licences),
    )
    problems += [f"gate {gate.name} fails now: {gate.detail}" for gate in again if not gate.passed]
    bills = [data for name, data in archive.files.items() if name.startswith(f"{archive.info}/sboms/")]
    if [hashlib.sha256(data).hexdigest() for data in bills] != [record.sbom]:
        problems.append("the bill of materials is not the one the record names")
    return problems


def _gate_problems(record: Record) -> list[str]:
    failed = [f"gate {gate.name} failed: {gate.detail}" for gate in record.gates if not gate.passed]
    return [*missing_gates(record), *failed]
