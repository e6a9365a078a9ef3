"""Talking to an upload server: its simple pages are read by us, files are sent by `uv publish`.

Pages are read here and not by uv's --check-url, for uv takes a page that wants a login (a pypiserver with `-a list`)
for a page that is not there, and would then send over what it was to compare with. Nothing on another host is asked:
a pypiserver sends who asks for a project it does not have to the public index.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
from unearth import Link
from unearth.collector import IndexPage, parse_html_page, parse_json_response
from unearth.fetchers import PyPIClient
from uv import find_uv_bin

from hopperforge.errors import HopperforgeError, InputError, PublishError
from hopperforge.run.credentials import PLACES, Login, find_login
from hopperforge.run.download import explain, open_client
from hopperforge.run.files import make_folder
from hopperforge.run.pip_settings import PipSettings, read_pip_settings
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace

_ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.01"
_PLAIN_JSON: Final = "application/json"
_JSON: Final = "application/vnd.pypi.simple.v1+json"
_REDIRECTS: Final = 5
_CHUNK: Final = 1 << 20
_REFUSED: Final = frozenset({401, 403})
_ABSENT: Final = frozenset({404, 410})
_NO_LOGIN: Final = re.compile(r"status code (401|403)\b|Missing credentials")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where files are sent, and where the simple pages are, None to find out."""

    upload: str
    simple: str | None = None

    @classmethod
    def parse(cls, upload: str, simple: str | None = None) -> "ServerAddress":
        """Read addresses; InputError for what is none, or holds a user or password, which is not repeated."""
        for text in (upload, simple or upload):
            parts = urlsplit(text)
            if "@" in parts.netloc:
                raise InputError(
                    "a server is named without user and password; those come from the environment",
                    hint="export UV_PUBLISH_USERNAME=... UV_PUBLISH_PASSWORD=...   # or a line in ~/.netrc",
                )
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise InputError(f"{text} is not the address of a server", hint="to=https://host/path")
        return cls(upload=upload.rstrip("/") + "/", simple=simple and simple.rstrip("/") + "/")


class UploadServer:
    """An open connection to one server; every failure is a PublishError that holds no password."""

    def __init__(
        self,
        address: ServerAddress,
        client: PyPIClient,
        settings: PipSettings,
        login: Login | None,
        workspace: Workspace,
    ) -> None:
        self._upload = address.upload
        self._client = client
        self._settings = settings
        self._login = login
        self._workspace = workspace
        self.simple = address.simple or self._find_simple()
        """The address of the simple pages."""
        if self._page(self.simple) is None:
            raise PublishError(
                f"there is no simple index at {self.simple}, so nobody can say what is published there",
                hint="check=URL   # the address that pip reads: what pip's --index-url would be",
            )

    def files(self, project: str) -> Mapping[str, Link]:
        """Links of all files that the server lists of a project, by name."""
        page = self._page(f"{self.simple}{project}/")
        if page is None:
            return {}
        kind = page.headers.get("Content-Type", "")
        parse = parse_json_response if kind.lower().startswith(_JSON) else parse_html_page
        try:
            found = [*parse(IndexPage(Link(str(page.url)), page.content, page.encoding, kind))]
        except (ValueError, KeyError, AttributeError) as error:
            raise PublishError(f"{page.url} is no page of an index: it cannot be read as {kind}") from error
        return {link.filename: link for link in found if link.filename}

    def sha256(self, link: Link) -> str:
        """The sha256 of a listed file: as its page says, else of what the server hands out."""
        announced = (link.hash_option or {}).get("sha256")
        if announced:
            return announced[0].lower()
        digest = hashlib.sha256()
        with self._telling(link.url_without_fragment):
            for chunk in self._bytes(link.url_without_fragment):
                digest.update(chunk)
        return digest.hexdigest()

    def send(self, path: Path) -> None:
        """Upload one file; PublishError with what uv and the server said, and where to look."""
        argv = [find_uv_bin(), "publish", "--no-config", "--no-cache", "--no-progress", "--trusted-publishing", "never"]
        argv += ["--keyring-provider", "disabled", "--no-attestations", "--publish-url", self._upload, str(path)]
        done = run(argv, cwd=make_folder(self._workspace.work), env=self._environment())
        lines = [self._hidden(line) for line in done.tail]
        for line in lines:
            self._workspace.reporter.output("uv publish", line)
        if done.status != 0:
            text = "\n".join(lines)
            sentence = f"{path.name} was not taken by {self._upload}"
            raise self._no_login(sentence, lines) if _NO_LOGIN.search(text) else PublishError(sentence, detail=lines)

    def _environment(self) -> Mapping[str, str]:
        """The environment of uv: ours, with the one login that was found, and pip's settings where uv has none."""
        env = {name: text for name, text in self._workspace.environ.items() if not name.startswith("UV_PUBLISH_")}
        if self._login is not None:
            env |= {"UV_PUBLISH_USERNAME": self._login.user, "UV_PUBLISH_PASSWORD": self._login.password}
        if self._settings.cert is not None:
            env.setdefault("SSL_CERT_FILE", self._settings.cert)
        if self._settings.proxy is not None:
            env.setdefault("ALL_PROXY", self._settings.proxy)
        return env

    def _find_simple(self) -> str:
        """Ask for them as one asks a devpi; everyone else has them in simple/."""
        # with a word of index pages in Accept, devpi takes the name for a project's
        page = self._page(f"{self._upload}+api", accept=_PLAIN_JSON)
        kind = "" if page is None else page.headers.get("Content-Type", "")
        return f"{self._upload}+simple/" if kind.startswith(_PLAIN_JSON) else f"{self._upload}simple/"

    def _page(self, url: str, *, accept: str = _ACCEPT) -> httpx2.Response | None:
        """Get a page of this server; None where it has none, sends us to another host, or round in circles."""
        for _ in range(_REDIRECTS):
            with self._telling(url):
                answer = self._client.get(url, headers={"Accept": accept}, auth=self._auth(url), follow_redirects=False)
                if answer.status_code in _ABSENT:
                    return None
                if answer.next_request is None:
                    answer.raise_for_status()
                    return answer
            url = str(answer.next_request.url)
            if not self._is_ours(url):
                return None
        return None

    def _bytes(self, url: str) -> Iterator[bytes]:
        with self._client.stream("GET", url, auth=self._auth(url), follow_redirects=True) as answer:
            answer.raise_for_status()
            yield from answer.iter_bytes(_CHUNK)

    def _auth(self, url: str) -> tuple[str, str] | None:
        return (self._login.user, self._login.password) if self._login is not None and self._is_ours(url) else None

    def _is_ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._upload)[:2]

    @contextlib.contextmanager
    def _telling(self, url: str) -> Iterator[None]:
        """Turn what goes wrong with a request into a PublishError."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            sentence = f"{url} cannot be read: {self._hidden(explain(error))}"
            if isinstance(error, httpx2.HTTPStatusError) and error.response.status_code in _REFUSED:
                raise self._no_login(sentence, ()) from error
            raise PublishError(
                sentence, hint=f"curl -I {url}   # is the server up, and the address that of its index?"
            ) from error

    def _no_login(self, sentence: str, lines: list[str] | tuple[()]) -> HopperforgeError:
        who = (
            f"no login was found for it in {PLACES}"
            if self._login is None
            else f"tried as the user {self._login.user}, whose password is from {self._login.source}"
        )
        return PublishError(
            sentence,
            detail=[*lines, who],
            hint="export UV_PUBLISH_USERNAME=... UV_PUBLISH_PASSWORD=...   # or a line in ~/.netrc",
        )

    def _hidden(self, text: str) -> str:
        return text if self._login is None else self._login.hide(text)


@contextlib.contextmanager
def open_server(address: ServerAddress, workspace: Workspace) -> Iterator[UploadServer]:
    """Connect to a server by pip's settings, with the login found for it; PublishError if it does not answer."""
    folder = make_folder(workspace.work)
    settings = read_pip_settings(workspace.environ, folder)
    with open_client(settings) as client:
        login = find_login(address.upload, workspace.environ, folder)
        yield UploadServer(address, client, settings, login, workspace)
