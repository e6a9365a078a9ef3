"""Ed25519 keys in PEM files, and how long each may be believed.

A public key's file says above its PEM block who the key belongs to and from when to when it holds, in lines that
OpenSSL passes over. That file is what a verifier trusts, so it is the right place for the end of a key.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from hopperforge.errors import InputError

_BEGIN: Final = "-----BEGIN "
_FIELDS: Final = ("name", "valid-from", "valid-until")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key to verify with: `key_id` is the sha256 of its DER form, times are UTC."""

    name: str
    valid_from: datetime
    valid_until: datetime
    key_id: str
    key: SSlibKey

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """Read a public key's file; InputError names `place` and what is wrong."""
        above, begin, below = text.partition(_BEGIN)
        if not begin.strip() or below.startswith(("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")):
            what = "it holds a private key" if begin else "it holds no PEM block"
            raise _wrong(place, what)
        fields = dict(line.partition(":")[::2] for line in above.splitlines() if ":" in line)
        try:
            key = serialization.load_pem_public_key((begin + below).encode())
            name, start, end = (fields[field].strip() for field in _FIELDS)
            valid_from, valid_until = (datetime.fromisoformat(moment) for moment in (start, end))
        except KeyError as error:
            raise _wrong(place, f"above the PEM block, the line {error.args[0]}: is missing") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _wrong(place, str(error)) from error
        if not isinstance(key, Ed25519PublicKey):
            raise _wrong(place, "it is not an ed25519 key")
        if valid_from.tzinfo is None or valid_until.tzinfo is None:
            raise _wrong(place, "valid-from and valid-until need a time zone, as in 2026-11-27T00:00:00+00:00")
        key_id = key_id_of(key)
        return cls(
            name=name,
            valid_from=valid_from,
            valid_until=valid_until,
            key_id=key_id,
            key=SSlibKey.from_crypto(key, keyid=key_id),
        )

    def why_not(self, now: datetime) -> str | None:
        """Say why the key does not hold at a moment; None if it does."""
        if now < self.valid_from:
            return f"the key {self} holds from {self.valid_from.isoformat()} on"
        if now > self.valid_until:
            return f"the key {self} expired on {self.valid_until.isoformat()}"
        return None

    def __str__(self) -> str:
        """Its name and the first digits of its id."""
        return f"{self.name} ({self.key_id[:16]})"


def key_id_of(key: Ed25519PublicKey) -> str:
    """Name a key by the sha256 of its SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha256sum` does."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def make_key_pair(name: str, *, now: datetime, days: int) -> tuple[bytes, bytes]:
    """Make a key: the private file's bytes, which are a secret, and the public one's."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    start = now.astimezone(UTC).replace(microsecond=0)
    values = (name, start.isoformat(), (start + timedelta(days=days)).isoformat())
    lines = "".join(f"{field}: {value}\n" for field, value in zip(_FIELDS, values, strict=True))
    return private, lines.encode() + pem


def read_signer(data: bytes, place: str) -> CryptoSigner:
    """Read a private key's file; InputError names `place` and never what is in it."""
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise _wrong(place, "it is encrypted; keep it on an encrypted disk instead", private=True) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _wrong(place, "it holds no private key in PEM", private=True) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong(place, "it is not an ed25519 key", private=True)
    public = key.public_key()
    return CryptoSigner(key, SSlibKey.from_crypto(public, keyid=key_id_of(public)))


def _wrong(place: str, what: str, *, private: bool = False) -> InputError:
    kind = "private" if private else "public"
    return InputError(
        f"{place} is no {kind} key of hopperforge: {what}", hint="nox -s sign -- key=new folder=FOLDER   # makes a pair"
    )
