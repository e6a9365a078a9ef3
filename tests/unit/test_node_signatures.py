"""The doctor's judgement of signatures: as strict as `hopperforge verify key=`, without a library."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.signed_zoo import NOW, SPOILED, SignedIndex, signed_index

from hopperforge.errors import TrustError
from hopperforge.node.reading import read_entries, read_signed
from hopperforge.node.signatures import TrustedKey, UntrustedError, check_signature, read_key
from hopperforge.provenance.envelope import open_envelope, sign
from hopperforge.provenance.keys import PublicKey, read_signer
from hopperforge.stages.attest import check_signed


@pytest.fixture
def index(tmp_path: Path) -> SignedIndex:
    return signed_index(tmp_path)


def _key(index: SignedIndex) -> TrustedKey:
    return read_key(index.public.read_text(), "key")


def _judge(index: SignedIndex, now: datetime = NOW) -> TrustedKey:
    (entry,) = read_entries(json.loads((index.root / "packages.json").read_text()), "here")
    return check_signature(entry, read_signed(str(index.root), entry, {}), [_key(index)], now)


def test_a_signed_wheel_is_taken_and_the_key_is_that_of_the_library(index: SignedIndex) -> None:
    found, known = _judge(index), PublicKey.parse(index.public.read_text(), "key")
    assert (found.name, found.key_id, found.valid_from, found.valid_until) == (
        known.name,
        known.key_id,
        known.valid_from,
        known.valid_until,
    )


@pytest.mark.parametrize("what", SPOILED)
def test_what_was_passed_off_is_refused_here_and_by_verify(index: SignedIndex, what: str) -> None:
    spoil, said = SPOILED[what]
    spoil(index)
    with pytest.raises(UntrustedError) as caught:
        _judge(index)
    assert said in str(caught.value)
    with pytest.raises(TrustError):
        check_signed(index.wheel, [PublicKey.parse(index.public.read_text(), "key")], now=NOW)


@pytest.mark.parametrize("days", [-1, 31])
def test_a_key_before_or_after_its_time_is_refused(index: SignedIndex, days: int) -> None:
    with pytest.raises(UntrustedError, match="the key release does not hold now, but from 2026-11-27"):
        _judge(index, NOW + timedelta(days=days))


def _signed_anew(index: SignedIndex, *path: str, value: object) -> None:
    """Sign another statement with the right key: one value of it is changed."""
    known = PublicKey.parse(index.public.read_text(), "key")
    payload, _ = open_envelope(index.signature.read_bytes(), [known], now=NOW)
    statement: dict[str, Any] = json.loads(payload)
    place = statement
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    signer = read_signer(index.private.read_bytes(), "key")
    index.signature.write_bytes(sign(json.dumps(statement).encode(), signer))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1", "a statement of another kind"),
        (("predicateType",), "https://slsa.dev/provenance/v2", "a statement of another kind"),
        (("predicate", "buildDefinition", "buildType"), "urn:other", "a statement of another kind"),
        (("predicate", "runDetails", "builder", "id"), "urn:hopperforge:key:00", "made by another builder"),
        (("predicate", "buildDefinition", "internalParameters", "buildKey"), "0", "is not the record's"),
        (("subject",), [], "speaks of other files too"),
        (("subject",), 7, "is no statement over this wheel and its record"),
        (("predicate",), None, "is no statement over this wheel and its record"),
    ],
)
def test_a_good_signature_over_another_statement_is_refused(
    index: SignedIndex, path: tuple[str, ...], value: object, said: str
) -> None:
    _signed_anew(index, *path, value=value)
    with pytest.raises(UntrustedError, match=said):
        _judge(index)


@pytest.mark.parametrize("gates", [[], [{"name": "size", "passed": False, "detail": ""}]])
def test_a_record_that_proves_nothing_is_refused_however_it_is_signed(index: SignedIndex, gates: object) -> None:
    plain = json.loads(index.place.read_text())
    index.place.write_text(json.dumps({**plain, "gates": gates}))
    with pytest.raises(UntrustedError, match="a gate failed, or none was run"):
        _judge(index)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("name: release\n", ""), "the line name: is missing"),
        (lambda text: text.replace("+00:00", ""), "its times have no time zone"),
        (lambda text: text.replace("valid-until: 2026", "valid-until: x"), "Invalid isoformat"),
        (lambda text: text.replace("MCow", "MCox"), "no ed25519 public key"),
        (lambda text: text.replace("PUBLIC", "PRIVATE"), "no ed25519 public key"),
        (lambda _: "", "is no public key"),
    ],
)
def test_what_is_no_key_is_named(index: SignedIndex, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_key(change(index.public.read_text()), "the key")
