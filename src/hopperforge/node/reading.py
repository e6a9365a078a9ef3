"""Reading the catalog of an index over http, from a file, or from a folder."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import netrc
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hopperforge.node.answer import as_url
from hopperforge.node.signatures import Signed
from hopperforge.node.values import Entry, MissingError, UnreadableError
from hopperforge.node.versions import satisfies

CATALOG_FORMAT = 1
TOKEN = "HOPPERFORGE_INDEX_TOKEN"  # noqa: S105 - the name of a variable, no secret


def read_index(index: str, environ: Mapping[str, str]) -> tuple[Entry, ...]:
    """Read the catalog of an index: a URL, file:// too, or a folder; UnreadableError says why that failed."""
    place = f"{as_url(index)}/packages.json"
    try:
        data = json.loads(_fetch(index, "packages.json", environ))
    except ValueError as error:
        raise UnreadableError(f"{place} is not JSON: is {as_url(index)} the root of an index?") from error
    return read_entries(data, place)


def read_entries(data: Any, place: str) -> tuple[Entry, ...]:
    """Take what choosing needs out of a catalog; UnreadableError names `place` and what is wrong with it."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != CATALOG_FORMAT:
        raise UnreadableError(
            f"{place} is of format {found}, and this doctor reads {CATALOG_FORMAT}: take the index's own doctor.py"
        )
    try:
        return tuple(_entry(item) for item in data["packages"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableError(f"{place} is not a catalog this doctor can read: {error!r}") from error


def _entry(item: Mapping[str, Any]) -> Entry:
    values = {name: item[name] for name in Entry.__dataclass_fields__}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    entry = Entry(**{**values, **lists})
    satisfies((), ",".join((entry.requires_python or "", re.sub("^torch", "", entry.torch or ""))))
    if not all(isinstance(text, str) for text in (entry.version, entry.file, entry.driver, entry.toolkit)):
        raise TypeError(f"{entry.file} holds a number where a text belongs")
    if not entry.cells or (entry.toolkit and not entry.cuda):
        raise ValueError(f"{entry.file} names no cell or no toolkit")
    return entry


def read_signed(index: str, entry: Entry, environ: Mapping[str, str]) -> Signed:
    """Read a wheel of an index, its record and its signature; UnreadableError if wheel or record cannot be read."""
    wheel = hashlib.sha256(_fetch(index, entry.path, environ)).hexdigest()
    record = _fetch(index, f"{entry.path}.json", environ)
    try:
        envelope = _fetch(index, f"{entry.path}.dsse.json", environ)
    except MissingError:
        return Signed(wheel, record, None)
    return Signed(wheel, record, envelope)


def _fetch(index: str, path: str, environ: Mapping[str, str]) -> bytes:
    if "://" not in index:
        index = Path(index).absolute().as_uri()
    address = f"{as_url(index)}/{urllib.parse.quote(path)}"
    request = urllib.request.Request(address, headers={"User-Agent": "hopperforge-doctor"})  # noqa: S310
    secret = credentials(index, environ)
    if secret is not None:
        # unredirected: it is for this server, not for wherever that one points
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the user names the place
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            ask = f"; set {TOKEN}, or name the server in ~/.netrc" if error.code in (401, 403) else ""
            kind = MissingError if error.code in (404, 410) else UnreadableError
            raise kind(f"{address}: the server answers {error.code} {error.reason}{ask}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        gone = isinstance(reason, FileNotFoundError) or isinstance(error, FileNotFoundError)
        raise (MissingError if gone else UnreadableError)(f"{address} cannot be read: {reason}") from error


def credentials(index: str, environ: Mapping[str, str]) -> str | None:
    """Find "user:password" for a server: of the URL, of the environment, of the netrc file, in this order."""
    parts = urllib.parse.urlsplit(index)
    if parts.scheme not in ("http", "https"):
        return None
    if parts.username is not None:
        return f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    if environ.get(TOKEN):
        return f"__token__:{environ[TOKEN]}"
    path = environ.get("NETRC") or str(Path(environ.get("HOME", "/")) / ".netrc")
    try:
        found = netrc.netrc(path).authenticators(parts.hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return None if found is None else f"{found[0]}:{found[2]}"
