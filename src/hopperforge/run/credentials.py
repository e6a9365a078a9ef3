"""Who we are to a server: a name and a password from the environment, netrc or keyring, never from words of a verb.

A password is only ever handed on in a process's environment and in a connection. What is shown goes through `hide`.
"""

import base64
import netrc
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hopperforge.errors import InputError
from hopperforge.run.process import run

PLACES: Final = "UV_PUBLISH_TOKEN, UV_PUBLISH_USERNAME with UV_PUBLISH_PASSWORD, netrc, keyring"

_TOKEN_USER: Final = "__token__"  # noqa: S105 - the name that upload servers give the user of a token
_HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user and a password, and where they were found; the password is in no text made of it."""

    user: str
    password: str = field(repr=False)
    source: str

    def hide(self, text: str) -> str:
        """Give a text without the password, as it is and as a header carries it."""
        header = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return text.replace(self.password, _HIDDEN).replace(header, _HIDDEN) if self.password else text


def find_login(url: str, environ: Mapping[str, str], cwd: Path) -> Login | None:
    """Find the login for a server; the first of PLACES that has one counts, None if none has.

    keyring is the program of that name, asked for the password of UV_PUBLISH_USERNAME. InputError for a netrc file
    that cannot be read.
    """
    token = environ.get("UV_PUBLISH_TOKEN")
    if token:
        return Login(user=_TOKEN_USER, password=token, source="UV_PUBLISH_TOKEN")
    user = environ.get("UV_PUBLISH_USERNAME")
    password = environ.get("UV_PUBLISH_PASSWORD")
    if user and password:
        return Login(user=user, password=password, source="UV_PUBLISH_PASSWORD")
    return _of_netrc(url, user, environ) or _of_keyring(url, user, environ, cwd)


def _of_netrc(url: str, user: str | None, environ: Mapping[str, str]) -> Login | None:
    path = Path(environ.get("NETRC") or Path(environ.get("HOME", "/")) / ".netrc")
    if not path.is_file():
        return None
    try:
        found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError) as error:
        # what is wrong in the file may be a password, so its text is not repeated
        raise InputError(f"{path} cannot be read as a netrc file", hint=f"ls -l {path}") from error
    if found is None or not found[2] or (user and user != found[0]):
        return None
    return Login(user=found[0], password=found[2], source=str(path))


def _of_keyring(url: str, user: str | None, environ: Mapping[str, str], cwd: Path) -> Login | None:
    program = shutil.which("keyring", path=environ.get("PATH"))
    if program is None or not user:
        return None
    for service in (url, urlsplit(url).netloc):  # as pip and uv ask: for the address, then for the host
        lines: list[str] = []
        done = run([program, "get", service, user], cwd=cwd, env=environ, on_line=lines.append)
        if done.status == 0 and lines:
            return Login(user=user, password=lines[-1], source="keyring")
    return None
