"""DSSE envelopes: signing and opening them, with keys at hand and no network.

https://github.com/secure-systems-lab/dsse. The signature is over the payload's bytes as they are, and nothing of them
is read before a signature was found good.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature

from hopperforge.errors import TrustError
from hopperforge.model.keys import JsonValue
from hopperforge.provenance.keys import PublicKey
from hopperforge.provenance.statement import read_statement

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
LARGEST: Final = 4 * 2**20
"""Bytes; a statement of ours has some ten thousand."""


class _SignatureShape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    keyid: str = Field(pattern=r"^[0-9a-f]{64}$")
    sig: str


class _EnvelopeShape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    payload: str
    payloadType: str  # noqa: N815 - the specification's name
    signatures: list[_SignatureShape] = Field(min_length=1, max_length=16)


def sign(payload: bytes, signer: CryptoSigner) -> bytes:
    """Put a payload into an envelope with one signature."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    document: dict[str, JsonValue] = envelope.to_dict()
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def open_envelope(data: bytes, keys: Sequence[PublicKey], *, now: datetime) -> tuple[bytes, tuple[PublicKey, ...]]:
    """Give the payload and the keys that signed it, one at least; TrustError if none that holds now did."""
    envelope = _read(data)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TrustError(f"the signature is over a payload of another type: {envelope.payload_type[:80]}")
    signed = set(envelope.signatures)
    known = [key for key in keys if key.key_id in signed]
    if not known:
        raise TrustError(
            "it is signed with a key that is not trusted here",
            detail=[
                *(f"signed with: {key_id}" for key_id in sorted(signed)),
                *(f"trusted: {key.key_id} ({key.name})" for key in keys),
            ],
        )
    accepted = [key for key in known if _signed_by(envelope, key)]
    if not accepted:
        raise TrustError(
            "the signature does not fit what it stands beside",
            detail=[f"of the key {key}" for key in known],
        )
    expired = [reason for key in accepted if (reason := key.why_not(now)) is not None]
    holding = tuple(key for key in accepted if key.why_not(now) is None)
    if not holding:
        raise TrustError("it is signed with a key that does not hold now", detail=expired)
    return envelope.payload, holding


def covers(data: bytes, *, file: str, record: bytes) -> bool:
    """Whether an envelope's statement is over this record of a wheel; the signature itself is not looked at.

    For who keeps signatures beside records that grow, and must not show one that proves nothing any more.
    """
    try:
        subjects = read_statement(_read(data).payload).subject
    except (TrustError, ValueError):
        return False
    digest = hashlib.sha256(record).hexdigest()
    return any(one.name == f"{file}.json" and one.digest.get("sha256") == digest for one in subjects)


def _signed_by(envelope: Envelope, key: PublicKey) -> bool:
    try:
        envelope.verify([key.key], 1)
    except VerificationError:
        return False
    return True


def _read(data: bytes) -> Envelope:
    if len(data) > LARGEST:
        raise TrustError(f"the signature file has {len(data)} bytes, and {LARGEST} at most are read")
    try:
        shape = _EnvelopeShape.model_validate_json(data)
        payload = base64.b64decode(shape.payload, validate=True)
        signatures = {
            entry.keyid: Signature(entry.keyid, base64.b64decode(entry.sig, validate=True).hex())
            for entry in shape.signatures
        }
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise TrustError("the signature file is no DSSE envelope", detail=[f"{place}: {first['msg']}"]) from error
    except (binascii.Error, ValueError) as error:
        raise TrustError("the signature file is no DSSE envelope", detail=[f"base64: {error}"]) from error
    if len(signatures) != len(shape.signatures):
        raise TrustError("the signature file is no DSSE envelope", detail=["two signatures of one key"])
    return Envelope(payload, shape.payloadType, signatures)
