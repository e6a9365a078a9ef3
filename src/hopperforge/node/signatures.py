"""Whether a wheel of an index is signed by a key that the user named: the DSSE envelope beside it. Pure.

The same judgement as `hopperforge verify key=`, as far as it can be made without unpacking the wheel: who signed has
looked into it, for nothing is signed whose gates did not pass.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from hopperforge.node.ed25519 import KEY_BYTES, verify_ed25519

PAYLOAD_KIND = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD = "urn:hopperforge:build:1"
_BUILDER = "urn:hopperforge:key:"
_ED25519 = bytes.fromhex("302a300506032b6570032100")  # what stands before the 32 bytes of a key in DER (RFC 8410)


@dataclass(frozen=True)
class TrustedKey:
    """A public key, with its sha256 as its id, and when it holds."""

    name: str
    key_id: str
    raw: bytes
    valid_from: datetime
    valid_until: datetime


@dataclass(frozen=True)
class Signed:
    """What was found of one wheel: its sha256, the bytes of its record, and those of its signature if it has one."""

    wheel_sha256: str
    record: bytes
    envelope: bytes | None


class Named(Protocol):
    """A wheel by its file's name and its sha256, as the catalog or whoever holds the file says: an Entry is one."""

    @property
    def file(self) -> str:
        """The name."""

    @property
    def sha256(self) -> str:
        """The hash, in hexadecimal digits."""


class UntrustedError(Exception):
    """A file is not what it should be; the text says why."""


def read_key(text: str, place: str) -> TrustedKey:
    """Read a public key of `hopperforge sign key=new`: lines above a PEM block; ValueError names `place`."""
    above, begin, below = text.partition("-----BEGIN PUBLIC KEY-----")
    body, end, _ = below.partition("-----END PUBLIC KEY-----")
    fields = dict(line.partition(":")[::2] for line in above.splitlines() if ":" in line)
    try:
        der = _der("".join(body.split()) if begin and end else "")
        times = [datetime.fromisoformat(fields[name].strip()) for name in ("valid-from", "valid-until")]
        name = fields["name"].strip()
    except KeyError as error:
        raise ValueError(f"{place} is no public key of hopperforge: the line {error.args[0]}: is missing") from error
    except ValueError as error:
        raise ValueError(f"{place} is no public key of hopperforge: {error}") from error
    if any(moment.tzinfo is None for moment in times):
        raise ValueError(f"{place} is no public key of hopperforge: its times have no time zone")
    return TrustedKey(name, hashlib.sha256(der).hexdigest(), der[len(_ED25519) :], times[0], times[1])


def _der(body: str) -> bytes:
    """Read what stands between the lines of a PEM block; ValueError if it is not the DER form of an ed25519 key."""
    der = base64.b64decode(body, validate=True)
    if len(der) != len(_ED25519) + KEY_BYTES or not der.startswith(_ED25519):
        raise ValueError("it holds no ed25519 public key in PEM")
    return der


def check_signature(entry: Named, found: Signed, keys: Sequence[TrustedKey], now: datetime) -> TrustedKey:
    """Give the key that signed a wheel and holds now; UntrustedError says in one sentence why there is none."""
    if found.envelope is None:
        raise UntrustedError("it is not signed, and a signature was asked for")
    if found.wheel_sha256 != entry.sha256:
        raise UntrustedError(f"the wheel has the sha256 {found.wheel_sha256}, and the catalog says {entry.sha256}")
    try:
        payload, signatures = _open(json.loads(found.envelope))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedError(f"its signature file is no DSSE envelope: {error!r}") from error
    key = _signer(payload, signatures, keys, now)
    try:
        problems = [*_wrong(json.loads(payload), json.loads(found.record), entry, found, key)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedError(f"what is signed is no statement over this wheel and its record: {error!r}") from error
    if problems:
        raise UntrustedError("; ".join(problems))
    return key


def _open(envelope: Mapping[str, Any]) -> tuple[bytes, Mapping[str, bytes]]:
    """Give the payload and the signatures by the id of their key."""
    if envelope["payloadType"] != PAYLOAD_KIND:
        raise ValueError("its payload is of another type")
    payload = base64.b64decode(envelope["payload"], validate=True)
    return payload, {one["keyid"]: base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]}


def _signer(payload: bytes, signatures: Mapping[str, bytes], keys: Sequence[TrustedKey], now: datetime) -> TrustedKey:
    known = [key for key in keys if key.key_id in signatures]
    if not known:
        raise UntrustedError(f"it is signed with a key that is not trusted here: {', '.join(sorted(signatures))}")
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_KIND), PAYLOAD_KIND.encode(), len(payload), payload)
    good = [key for key in known if verify_ed25519(key.raw, signed, signatures[key.key_id])]
    if not good:
        raise UntrustedError(f"the signature of the key {known[0].name} does not fit what it stands beside")
    holding = [key for key in good if key.valid_from <= now <= key.valid_until]
    if not holding:
        span = f"from {good[0].valid_from.isoformat()} to {good[0].valid_until.isoformat()}"
        raise UntrustedError(f"the key {good[0].name} does not hold now, but {span}")
    return holding[0]


def _wrong(
    statement: Mapping[str, Any], record: Mapping[str, Any], entry: Named, found: Signed, key: TrustedKey
) -> Iterable[str]:
    """List where what is signed speaks of another wheel, record or builder, or does not prove the wheel."""
    definition, run = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    kinds = (statement["_type"], statement["predicateType"], definition["buildType"])
    if kinds != (_STATEMENT, _PREDICATE, _BUILD):
        yield "what is signed is a statement of another kind"
    named = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    record_sha256 = hashlib.sha256(found.record).hexdigest()
    expected = {entry.file: found.wheel_sha256, f"{entry.file}.json": record_sha256}
    for file, digest in expected.items():
        if named.get(file) != digest:
            yield f"signed is {file} with the sha256 {named.get(file)}, and here it has {digest}"
    if len(statement["subject"]) != len(expected):
        yield "what is signed speaks of other files too"
    if run["builder"]["id"] != _BUILDER + key.key_id:
        yield "what is signed was made by another builder"
    if (record["wheel"]["file"], record["wheel"]["sha256"]) != (entry.file, entry.sha256):
        yield "the record is that of another wheel"
    if definition["internalParameters"]["buildKey"] != record["build_key"]:
        yield "the build key that is signed is not the record's"
    if not record["gates"] or not all(gate["passed"] is True for gate in record["gates"]):
        yield "the record does not prove the wheel: a gate failed, or none was run"
