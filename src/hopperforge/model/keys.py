"""Content keys: one sha256 over everything that changes the bytes of a product."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


def canonical_json(value: JsonValue) -> bytes:
    """Serialise so that equal values give equal bytes: sorted keys, no blanks, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_key(kind: str, fields: Mapping[str, JsonValue]) -> str:
    """sha256 in hex over `kind` and `fields`; the kind keeps keys of different products apart."""
    return hashlib.sha256(canonical_json({"kind": kind, "fields": fields})).hexdigest()
