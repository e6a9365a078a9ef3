"""Signed packages: what is whole is taken, and every way of passing off something else is refused."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit import proof_zoo

from hopperforge.cli import run_command
from hopperforge.errors import GateError, HopperforgeError, InputError, TrustError
from hopperforge.index.proof import REQUIRED_GATES
from hopperforge.model.record import FileFacts, Record
from hopperforge.model.wheel import GateResult
from hopperforge.provenance.envelope import LARGEST, covers, open_envelope, sign
from hopperforge.provenance.keys import PublicKey, make_key_pair, read_signer
from hopperforge.provenance.statement import make_statement, read_statement
from hopperforge.report import Recorder
from hopperforge.stages.attest import (
    check_signed,
    check_signed_tarball,
    make_keys,
    package_problems,
    sign_package,
    signature_path,
)
from hopperforge.stages.wheel_archive import read_wheel, write_wheel
from hopperforge.store.wheelhouse import Wheelhouse

NOW = datetime(2026, 11, 27, tzinfo=UTC)
TARBALL = "fa3_fwd-3.0.0+cu130-manylinux_2_17_x86_64.tar.zst"
GATES = tuple(GateResult(name=name, passed=True, detail="") for name in sorted(REQUIRED_GATES))


@dataclasses.dataclass(frozen=True)
class Shelf:
    """A signed package, the keys it was signed with, and what to verify it with."""

    wheel: Path
    private: Path
    key: PublicKey

    @property
    def place(self) -> Path:
        """The record's file."""
        return Path(f"{self.wheel}.json")

    @property
    def signature(self) -> Path:
        """The signature's file."""
        return signature_path(self.wheel)

    def record(self) -> Record:
        """The record as it is now."""
        return Record.from_json(self.place.read_bytes(), "record")

    def check(self, *keys: PublicKey, now: datetime = NOW) -> Record:
        """Judge the package."""
        return check_signed(self.wheel, keys or (self.key,), now=now).record


def _key(path: Path) -> PublicKey:
    return PublicKey.parse(path.read_text(), str(path))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    wheel, record = proof_zoo.package(tmp_path / "house")
    Path(f"{wheel}.json").write_bytes(dataclasses.replace(record, gates=GATES).to_json())
    private, public = make_keys(tmp_path / "keys", "release", now=NOW, days=30)
    sign_package(wheel, private)
    return Shelf(wheel=wheel, private=private, key=_key(public))


@pytest.fixture
def with_tarball(tmp_path: Path) -> Shelf:
    """A signed package that has a tarball, too."""
    wheel, record = proof_zoo.package(tmp_path / "house")
    tarball = wheel.with_name(TARBALL)
    tarball.write_bytes(b"packed")
    facts = FileFacts(file=TARBALL, sha256=hashlib.sha256(b"packed").hexdigest(), size=6)
    gates = (*GATES, GateResult(name="tarball", passed=True, detail=""))
    Path(f"{wheel}.json").write_bytes(dataclasses.replace(record, gates=gates, tarball=facts).to_json())
    private, public = make_keys(tmp_path / "keys", "release", now=NOW, days=30)
    sign_package(wheel, private)
    return Shelf(wheel=wheel, private=private, key=_key(public))


def _refused(shelf: Shelf, kind: type[HopperforgeError], said: str, *keys: PublicKey, now: datetime = NOW) -> None:
    with pytest.raises(kind) as caught:
        shelf.check(*keys, now=now)
    assert said in str(caught.value)


def test_a_whole_package_is_taken(shelf: Shelf) -> None:
    assert shelf.check() == shelf.record()


def test_one_of_several_trusted_keys_is_enough(shelf: Shelf, tmp_path: Path) -> None:
    _, other = make_keys(tmp_path / "keys", "next", now=NOW, days=30)
    assert check_signed(shelf.wheel, [_key(other), shelf.key], now=NOW).keys == (shelf.key,)


def test_a_tarball_is_judged_with_its_wheel(with_tarball: Shelf) -> None:
    place = with_tarball.wheel.with_name(TARBALL)
    assert check_signed(with_tarball.wheel, [with_tarball.key], now=NOW).tarball == place
    place.write_bytes(b"other!")
    _refused(with_tarball, TrustError, f"{TARBALL} has the sha256 ")
    with pytest.raises(GateError, match="is not signed") as caught:
        sign_package(with_tarball.wheel, with_tarball.private)
    assert caught.value.detail[0].startswith(f"{TARBALL} has the sha256 ")
    place.unlink()
    assert check_signed(with_tarball.wheel, [with_tarball.key], now=NOW).tarball is None


def test_a_tarball_is_judged_without_its_wheel(with_tarball: Shelf) -> None:
    place, keys = with_tarball.wheel.with_name(TARBALL), [with_tarball.key]
    with_tarball.wheel.unlink()
    found = check_signed_tarball(place, keys, now=NOW)
    assert (found.path, found.keys, found.record) == (place, (with_tarball.key,), with_tarball.record())
    place.write_bytes(b"other!")
    with pytest.raises(TrustError, match="is not over what is here") as caught:
        check_signed_tarball(place, keys, now=NOW)
    assert caught.value.detail[0].startswith(f"{TARBALL} has the sha256 ")


def test_a_tarball_is_judged_by_its_record_alone(with_tarball: Shelf) -> None:
    place, keys = with_tarball.wheel.with_name(TARBALL), [with_tarball.key]
    signature = with_tarball.signature.read_bytes()
    with_tarball.signature.unlink()
    with pytest.raises(TrustError, match=re.escape(f"{TARBALL} is not signed")):
        check_signed_tarball(place, keys, now=NOW)
    with_tarball.signature.write_bytes(signature)
    plain = json.loads(with_tarball.place.read_text())
    plain["tarball"]["sha256"] = hashlib.sha256(b"other!").hexdigest()
    with_tarball.place.write_text(json.dumps(plain, indent=2))
    place.write_bytes(b"other!")
    with pytest.raises(TrustError, match="is not over what is here"):
        check_signed_tarball(place, keys, now=NOW)
    with_tarball.place.unlink()
    with pytest.raises(InputError, match=re.escape(f"no record beside {TARBALL} names it")):
        check_signed_tarball(place, keys, now=NOW)
    place.unlink()
    with pytest.raises(InputError, match="there is no file"):
        check_signed_tarball(place, keys, now=NOW)


def test_a_signed_tarball_whose_gate_is_missing_is_not_proven(with_tarball: Shelf) -> None:
    record = dataclasses.replace(with_tarball.record(), gates=GATES)
    with_tarball.place.write_bytes(record.to_json())
    signer = read_signer(with_tarball.private.read_bytes(), "key")
    statement = make_statement(record, with_tarball.place.read_bytes(), key_id=with_tarball.key.key_id)
    with_tarball.signature.write_bytes(sign(statement, signer))
    with pytest.raises(GateError, match="signed, and yet not proven") as caught:
        check_signed_tarball(with_tarball.wheel.with_name(TARBALL), [with_tarball.key], now=NOW)
    assert list(caught.value.detail) == ["gate tarball is missing"]


@pytest.mark.parametrize("offset", [0, 100, -1])
def test_a_wheel_changed_by_one_byte_is_refused(shelf: Shelf, offset: int) -> None:
    data = bytearray(shelf.wheel.read_bytes())
    data[offset] ^= 1
    shelf.wheel.write_bytes(data)
    _refused(shelf, TrustError, f"and {shelf.record().wheel.sha256} is signed")


@pytest.mark.parametrize("field", ["created", "engine", "profile", "build_key"])
def test_a_changed_record_is_refused(shelf: Shelf, field: str) -> None:
    plain = json.loads(shelf.place.read_text())
    plain[field] = "2" * 64
    shelf.place.write_text(json.dumps(plain, indent=2))
    _refused(shelf, TrustError, "is not over what is here")


def test_a_record_that_means_the_same_in_other_bytes_is_refused(shelf: Shelf) -> None:
    shelf.place.write_text(json.dumps(json.loads(shelf.place.read_text())))
    _refused(shelf, TrustError, "is not over what is here")


def test_wheel_and_record_changed_together_are_refused(shelf: Shelf) -> None:
    archive = read_wheel(shelf.wheel)
    write_wheel(shelf.wheel, dataclasses.replace(archive, files={**archive.files, "evil.py": b""}), epoch=0)
    record = shelf.record()
    digest = hashlib.sha256(shelf.wheel.read_bytes()).hexdigest()
    facts = dataclasses.replace(record.wheel, sha256=digest, size=shelf.wheel.stat().st_size)
    shelf.place.write_bytes(dataclasses.replace(record, wheel=facts).to_json())
    _refused(shelf, TrustError, "is not over what is here")


def test_a_package_without_signature_is_never_taken_for_a_signed_one(shelf: Shelf) -> None:
    shelf.signature.unlink()
    _refused(shelf, TrustError, "is not signed, and a signature was asked for")


def _document(shelf: Shelf) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shelf.signature.read_text())
    return document


@pytest.mark.parametrize(
    "unsigned", [{"signatures": []}, {"signatures": None}, {"payloadType": "text/plain"}, {"payload": ""}]
)
def test_an_envelope_without_a_signature_over_it_is_refused(shelf: Shelf, unsigned: dict[str, Any]) -> None:
    shelf.signature.write_text(json.dumps({**_document(shelf), **unsigned}))
    with pytest.raises(TrustError):
        shelf.check()


def test_the_signature_of_another_package_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shelf.wheel.parent, other)
    wheel = other / shelf.wheel.name
    record = dataclasses.replace(shelf.record(), created="another day")
    Path(f"{wheel}.json").write_bytes(record.to_json())
    shutil.copyfile(sign_package(wheel, shelf.private), shelf.signature)
    _refused(shelf, TrustError, "is not over what is here")


def test_a_signature_swapped_into_another_statement_is_refused(shelf: Shelf) -> None:
    document = _document(shelf)
    payload = base64.b64decode(document["payload"]).replace(b"hdim128-bf16", b"hdim128-fp16")
    shelf.signature.write_text(json.dumps({**document, "payload": base64.b64encode(payload).decode()}))
    _refused(shelf, TrustError, "the signature does not fit what it stands beside")


def test_a_signature_of_another_key_under_a_trusted_name_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    stranger, _ = make_keys(tmp_path / "keys", "stranger", now=NOW, days=30)
    sign_package(shelf.wheel, stranger)
    document = _document(shelf)
    document["signatures"][0]["keyid"] = shelf.key.key_id
    shelf.signature.write_text(json.dumps(document))
    _refused(shelf, TrustError, "the signature does not fit what it stands beside")


def test_an_unknown_key_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    _, stranger = make_keys(tmp_path / "keys", "stranger", now=NOW, days=30)
    _refused(shelf, TrustError, "signed with a key that is not trusted here", _key(stranger))


@pytest.mark.parametrize(
    ("moment", "said"),
    [(NOW + timedelta(days=31), "expired on 2026-12-27"), (NOW - timedelta(days=1), "holds from 2026-11-27")],
)
def test_a_key_out_of_its_time_is_refused(shelf: Shelf, moment: datetime, said: str) -> None:
    _refused(shelf, TrustError, said, now=moment)


def _resigned(shelf: Shelf, change: Callable[[dict[str, Any]], object]) -> None:
    """Sign a changed statement with the right key: what a careless or another tool could do."""
    signer = read_signer(shelf.private.read_bytes(), "key")
    statement = json.loads(make_statement(shelf.record(), shelf.place.read_bytes(), key_id=shelf.key.key_id))
    change(statement)
    shelf.signature.write_bytes(sign(json.dumps(statement).encode(), signer))


STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other type": (lambda s: s.update(_type="x"), "is no statement of ours: _type"),
    "other predicate": (lambda s: s.update(predicateType="x"), "is no statement of ours: predicateType"),
    "no subject": (lambda s: s.update(subject=[]), "names the sha256 None"),
    "one subject more": (lambda s: s["subject"].append({"name": "x", "digest": {}}), "it speaks of 3 files"),
    "other builder": (lambda s: s["predicate"]["runDetails"]["builder"].update(id="x"), "made by x, who has not"),
    "other build type": (lambda s: s["predicate"]["buildDefinition"].update(buildType="x"), "is no statement of ours"),
    "other key of the build": (
        lambda s: s["predicate"]["buildDefinition"].update(internalParameters={}),
        "its build key is not the record's",
    ),
}


@pytest.mark.parametrize(("change", "said"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_signed_statement_of_something_else_is_refused(
    shelf: Shelf, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    _resigned(shelf, change)
    _refused(shelf, TrustError, said)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"null",
        b"[" * 100_000,
        b'{"payload": "\\u00e9", "payloadType": "", "signatures": [{"keyid": "", "sig": ""}]}',
        b'{"payload": "!", "payloadType": "", "signatures": [{"keyid": "' + b"a" * 64 + b'", "sig": "!"}]}',
        b" " * (LARGEST + 1),
    ],
)
def test_what_is_no_envelope_is_refused(shelf: Shelf, data: bytes) -> None:
    with pytest.raises(TrustError):
        open_envelope(data, [shelf.key], now=NOW)


def test_two_signatures_of_one_key_are_refused(shelf: Shelf) -> None:
    document = _document(shelf)
    document["signatures"] *= 2
    shelf.signature.write_text(json.dumps(document))
    _refused(shelf, TrustError, "two signatures of one key")


def test_a_signature_is_known_to_cover_its_record_and_no_other(shelf: Shelf) -> None:
    signature, record, file = shelf.signature.read_bytes(), shelf.place.read_bytes(), shelf.wheel.name
    assert covers(signature, file=file, record=record)
    assert not covers(signature, file=file, record=record + b"\n")
    assert not covers(signature, file="other.whl", record=record)
    assert not covers(b"{}", file=file, record=record)
    assert not covers(sign(b"{}", read_signer(shelf.private.read_bytes(), "key")), file=file, record=record)


def test_read_statement_names_the_place() -> None:
    with pytest.raises(ValueError, match="_type"):
        read_statement(b"{}")


BROKEN: dict[str, tuple[Callable[[Record], Record], str]] = {
    "gate failed": (
        lambda r: r.with_gates([GateResult(name="abi3", passed=False, detail="it is not")]),
        "gate abi3 failed: it is not",
    ),
    "gate missing": (lambda r: dataclasses.replace(r, gates=GATES[1:]), f"gate {GATES[0].name} is missing"),
    "other sbom": (lambda r: dataclasses.replace(r, sbom="0" * 64), "the bill of materials is not the one"),
    "no sbom": (lambda r: dataclasses.replace(r, sbom=None), "the bill of materials is not the one"),
    "other patch": (
        lambda r: dataclasses.replace(r, source=dataclasses.replace(r.source, patches={})),
        "gate sbom fails now: fa3_fwd",
    ),
    "other licence": (lambda r: dataclasses.replace(r, licences={}), "gate licences fails now"),
    "other file": (
        lambda r: dataclasses.replace(r, wheel=dataclasses.replace(r.wheel, file="x.whl")),
        "the record names the file x.whl",
    ),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_what_its_record_does_not_prove_is_neither_signed_nor_taken(
    shelf: Shelf, change: Callable[[Record], Record], said: str
) -> None:
    shelf.place.write_bytes(change(shelf.record()).to_json())
    with pytest.raises(GateError) as caught:
        sign_package(shelf.wheel, shelf.private)
    assert any(line.startswith(said) or said in line for line in caught.value.detail)
    _resigned(shelf, lambda _: None)
    with pytest.raises((GateError, TrustError)):
        shelf.check()


def test_a_damaged_archive_is_a_problem_and_no_crash(shelf: Shelf) -> None:
    shelf.wheel.write_bytes(b"PK\x03\x04")
    digest = hashlib.sha256(b"PK\x03\x04").hexdigest()
    facts = dataclasses.replace(shelf.record().wheel, sha256=digest)
    problems = package_problems(shelf.wheel, dataclasses.replace(shelf.record(), wheel=facts))
    assert "cannot be read as a wheel" in problems[-1]


def test_the_private_file_is_the_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    private, public = make_keys(tmp_path / "keys", "release", now=NOW, days=1)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        make_keys(tmp_path / "keys", "release", now=NOW, days=1)


def test_a_private_key_that_others_can_read_is_refused(shelf: Shelf) -> None:
    shelf.private.chmod(0o640)
    with pytest.raises(InputError, match="can be read by others") as caught:
        sign_package(shelf.wheel, shelf.private)
    assert caught.value.hint == f"chmod 600 {shelf.private}"


def test_no_word_of_a_private_key_is_ever_said(shelf: Shelf, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(shelf.private.read_bytes().replace(b"MC4C", b"XXXX"))
    broken.chmod(0o600)
    secret = shelf.private.read_text().splitlines()[1]
    for place in (broken, shelf.place):
        place.chmod(0o600)
        with pytest.raises(InputError) as caught:
            sign_package(shelf.wheel, place)
        assert secret[8:24] not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: "", "it holds no PEM block"),
        (lambda text: text[text.index("-----BEGIN") :], "the line name: is missing"),
        (lambda text: text.replace("valid-until", "until"), "the line valid-until: is missing"),
        (lambda text: text.replace("+00:00", ""), "need a time zone"),
        (lambda text: text.replace("valid-from: 2026", "valid-from: soon"), "Invalid isoformat"),
        (lambda text: text.replace("MCow", "MCox"), "is no public key"),
        (lambda text: text.replace("PUBLIC", "PRIVATE"), "it holds a private key"),
    ],
)
def test_a_file_that_is_no_public_key_is_refused(change: Callable[[str], str], said: str) -> None:
    _, public = make_key_pair("release", now=NOW, days=1)
    with pytest.raises(InputError, match=said):
        PublicKey.parse(change(public.decode()), "k.pem")


def test_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    fields = "name: x\nvalid-from: 2026-01-01T00:00:00+00:00\nvalid-until: 2027-01-01T00:00:00+00:00\n"
    with pytest.raises(InputError, match="not an ed25519 key"):
        PublicKey.parse(fields + pem.decode(), "k.pem")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InputError, match="not an ed25519 key"):
        read_signer(private, "k.pem")
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(InputError, match="it is encrypted"):
        read_signer(locked, "k.pem")


def test_a_record_written_anew_takes_its_signature_away(shelf: Shelf) -> None:
    reporter = Recorder()
    house = Wheelhouse(shelf.wheel.parent, reporter)
    house.join_cells(shelf.record().wheel.sha256, ())
    assert shelf.signature.is_file()
    house.join_gates(shelf.record().wheel.sha256, [GateResult(name="import", passed=True, detail="")])
    assert not shelf.signature.exists()
    assert reporter.warnings == [
        f"{shelf.signature.name} was over the record before, and is removed: sign the package again"
    ]


@pytest.fixture
def command(shelf: Shelf, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOPPERFORGE_SIGNING_KEY", raising=False)
    return shelf


def test_the_commands_make_keys_sign_and_judge(
    command: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["sign", "key=new", f"folder={tmp_path}/mine", "name=me", "days=1"]) == 0
    monkeypatch.setenv("HOPPERFORGE_SIGNING_KEY", f"{tmp_path}/mine/me.private.pem")
    assert run_command(["sign", f"wheel={command.wheel}"]) == 0
    assert run_command(["verify", f"wheel={command.wheel}", f"key={tmp_path}/mine/me.public.pem"]) == 0
    assert "signed by me (" in capsys.readouterr().out
    command.signature.unlink()
    assert run_command(["verify", f"wheel={command.wheel}", f"key={tmp_path}/mine/me.public.pem"]) == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sign"], "sign takes wheel= and key="),
        (["sign", "wheel=a.whl"], "sign takes wheel= and key="),
        (["sign", "wheel=a.whl", "key=k", "days=3"], "days= is for key=new"),
        (["sign", "key=new"], "key=new takes folder="),
        (["sign", "key=new", "folder=f", "name=../x"], "make a key's name"),
        (["sign", "key=new", "folder=f", "days=0"], "days=0"),
        (["sign", "wheel=a.whl", "key=nowhere.pem"], "there is no key nowhere.pem"),
        (["verify", "key=nowhere.pem"], "the word wheel= is missing"),
        (["verify", "wheel=a.whl", "key=nowhere.pem"], "the key nowhere.pem cannot be read"),
        (["verify", "wheel=a.whl", "key=k", "torch=2.9"], "torch= does not go with it"),
    ],
)
def test_wrong_words_are_refused(
    command: Shelf, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.wheel.is_file()
    assert run_command(words) == 2
    assert said in capsys.readouterr().err
