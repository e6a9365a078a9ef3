"""Fetching pinned files into a cache ordered by hash, from the machine's package index or from an address.

The index is the one pip is set up for, and connections follow pip's settings whatever the address. A file is taken by
its exact name and counts only when its sha256 is the pinned one, whoever served it and however long it has been lying
here. Debian packages, which apt fetches, are in `run.debian`.
"""

import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit, urlunsplit

import httpx2
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher, PyPIClient

from hopperforge.errors import HopperforgeError, SourceError, ToolError
from hopperforge.model.toolkit import PinnedFile
from hopperforge.run.files import Lock, make_folder, sha256_file, storage_guard, sweep, writing
from hopperforge.run.pip_settings import PackageSource, PipSettings, SourceKind, read_pip_settings
from hopperforge.run.workspace import Workspace

ATTEMPTS: Final = 3
NOTE_SECONDS: Final = 20.0

_CHUNK: Final = 1 << 20
_LOGGER: Final = logging.getLogger("unearth")


def fetch(file: PinnedFile, workspace: Workspace, *, unreachable: type[HopperforgeError] = ToolError) -> Path:
    """Give the path of one pinned file in the cache, fetched if it is not there; see `fetch_all`."""
    return fetch_all([file], workspace, unreachable=unreachable)[0]


def fetch_all(
    files: Sequence[PinnedFile], workspace: Workspace, *, unreachable: type[HopperforgeError] = ToolError
) -> list[Path]:
    """Give the paths of pinned files in the cache, in order, fetching those that are not there or are damaged.

    SourceError for content with another sha256 (nothing of it is kept); `unreachable` if no place pip looks in
    has the file or answers. Without anything to fetch, neither pip nor the network is touched.
    """
    with contextlib.ExitStack() as stack:
        index: _Index | None = None

        def get(file: PinnedFile, final: Path) -> None:
            nonlocal index
            index = index or stack.enter_context(_open_index(workspace))
            index.fetch(file, final, unreachable)

        return [_cached(file, workspace, get) for file in files]


def fetch_address(address: str, sha256: str, workspace: Workspace) -> Path:
    """Give the path in the cache of the file that an address has, fetched if it is not there.

    SourceError for content with another sha256; ToolError if the address does not answer or has no such file.
    """
    file = PinnedFile(project="", filename=address.rpartition("/")[2], sha256=sha256)
    return _cached(file, workspace, lambda file, final: download(address, file, final, workspace))


def download(address: str, file: PinnedFile, final: Path, workspace: Workspace) -> None:
    """Put the file that an address has at `final`, outside the cache; errors as for `fetch_address`."""
    settings = read_pip_settings(workspace.environ, make_folder(workspace.cache))
    place = without_credentials(address)
    try:
        with open_client(settings) as client:
            _Download(client, workspace.reporter.note).get(address, file, final)
    except _WrongContentError as error:
        raise _wrong_content(file, [f"{place}: {error}"]) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise ToolError(
            f"{file.filename} cannot be fetched from {place.rpartition('/')[0]}: {explain(error)}",
            hint="python -m pip config list   # check proxy and cert; then run the same command again",
        ) from error


def download_unpinned(address: str, final: Path, workspace: Workspace) -> None:
    """Put the file that an address has at `final`, whatever it is: for what is judged by its content afterwards.

    ToolError if the address does not answer or has no such file.
    """
    settings = read_pip_settings(workspace.environ, make_folder(workspace.cache))
    place = without_credentials(address)
    try:
        with open_client(settings) as client, client.get_stream(address) as response:
            response.raise_for_status()
            with writing(final) as stream:
                for chunk in response.iter_bytes(_CHUNK):
                    stream.write(chunk)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise ToolError(
            f"{final.name} cannot be fetched from {place.rpartition('/')[0]}: {explain(error)}",
            hint="python -m pip config list   # check proxy and cert; then run the same command again",
        ) from error


def without_credentials(address: str) -> str:
    """Give an address as it may be shown."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _cached(file: PinnedFile, workspace: Workspace, get: Callable[[PinnedFile, Path], None]) -> Path:
    """Give the path of a file in the cache; `get` puts it there if it is missing or damaged."""
    final = cached_path(file, workspace)
    folder = final.parent
    wait = partial(workspace.reporter.note, f"waiting for another run that fetches {file.filename}")
    with Lock(folder.with_name(f"{folder.name}.lock"), on_wait=wait):
        if not _have(file, final, workspace):
            sweep(folder, file.filename)
            get(file, final)
    return final


def _wrong_content(file: PinnedFile, problems: Sequence[str]) -> SourceError:
    return SourceError(
        f"{file.filename} is not the file that is pinned: its sha256 differs; nothing of it was kept",
        detail=[f"pinned: sha256 {file.sha256}", *problems],
    )


def cached_path(file: PinnedFile, workspace: Workspace) -> Path:
    """Where the cache keeps a pinned file, whether or not it is there."""
    return workspace.files / file.sha256 / file.filename


def _have(file: PinnedFile, final: Path, workspace: Workspace) -> bool:
    if not final.is_file():
        return False
    found = sha256_file(final)
    if found == file.sha256:
        return True
    workspace.reporter.warn(f"{final} has changed since it was fetched (sha256 {found}): fetching it again")
    with storage_guard(final.parent):
        final.unlink()
    return False


@contextlib.contextmanager
def _open_index(workspace: Workspace) -> Iterator["_Index"]:
    settings = read_pip_settings(workspace.environ, make_folder(workspace.cache))
    with open_client(settings) as client:
        yield _Index(settings, client, workspace)


def open_client(settings: PipSettings) -> PyPIClient:
    """Open a client that connects as pip's settings say: certificates, proxy, time to wait, logins of its indexes."""
    verify: ssl.SSLContext | bool = True
    if settings.cert is not None:
        try:
            verify = ssl.create_default_context(cafile=settings.cert)
        except OSError as error:
            message = f"pip's setting cert names {settings.cert}, which cannot be used: {error.strerror or error}"
            raise ToolError(message, hint="python -m pip config debug") from error
    places = [source.place for source in settings.sources if source.kind is SourceKind.INDEX and source.place]
    return PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        cert=settings.client_cert,
        timeout=settings.timeout,
        follow_redirects=True,
        proxy=settings.proxy,
        auth=MultiDomainBasicAuth(prompting=False, index_urls=places),
    )


class _WrongContentError(Exception):
    """A place served content with another sha256; the text says which."""


class _Index:
    """All the places pip looks in, as one."""

    def __init__(self, settings: PipSettings, client: PyPIClient, workspace: Workspace) -> None:
        self._settings = settings
        self._client = client
        self._download = _Download(client, workspace.reporter.note)

    def fetch(self, file: PinnedFile, final: Path, unreachable: type[HopperforgeError]) -> None:
        """Put the file at `final` from the first place that has it with the right sha256."""
        problems: list[str] = []
        wrong = False
        for source in self._settings.sources:
            try:
                for link in self._links(file, source, problems):
                    _check_announced(link, file)
                    self._download.get(link.url_without_fragment, file, final)
                    return
            except _WrongContentError as error:
                wrong = True
                problems.append(f"{source.setting}: {error}")
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                problems.append(f"{source.setting}: {explain(error)}")
        if wrong:
            raise _wrong_content(file, problems)
        raise unreachable(
            f"{file.filename} cannot be fetched from the package index",
            detail=problems or ["pip's configuration names no place to look in (no-index)"],
            hint="python -m pip config list   # check index-url, proxy and cert; then run the same command again",
        )

    def _links(self, file: PinnedFile, source: PackageSource, problems: list[str]) -> list[Link]:
        """The links of one place to a file of that name; what keeps a link from being one goes to `problems`."""
        with _overheard(source.setting, problems) as heard:
            try:
                packages = self._finder(source).find_all_packages(file.project, allow_yanked=True)
            except ValueError as error:  # a find-links folder that does not exist, a page that is no JSON
                problems.append(f"{source.setting}: {error}")
                return []
            links = [package.link for package in packages if package.link.filename == file.filename]
        if not links and not heard.count:
            problems.append(f"{source.setting}: has no {file.filename}")
        return links

    def _finder(self, source: PackageSource) -> PackageFinder:
        # Files are chosen by name and hash: neither this Python nor this platform has a say.
        # The cast: unearth's own client takes more keywords than its protocol names.
        finder = PackageFinder(session=cast("Fetcher", self._client), ignore_compatibility=True)
        if source.place is not None:
            finder.sources.clear()
            if source.kind is SourceKind.INDEX:
                finder.add_index_url(source.place)
            else:
                finder.add_find_links(source.place)
        return finder


def _check_announced(link: Link, file: PinnedFile) -> None:
    announced = (link.hash_option or {}).get("sha256")
    if announced and file.sha256 not in announced:
        raise _WrongContentError(f"announces sha256 {announced[0]}")


class _Download:
    """Brings one file from one address, tried again where a connection breaks."""

    def __init__(self, client: PyPIClient, note: Callable[[str], None]) -> None:
        self._client = client
        self._note = note

    def get(self, address: str, file: PinnedFile, final: Path) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._stream(address, file, final)
            except (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError) as error:
                if attempt == ATTEMPTS:
                    raise
                self._note(f"{file.filename}: {explain(error)}; trying again")
            else:
                return

    def _stream(self, address: str, file: PinnedFile, final: Path) -> None:
        digest = hashlib.sha256()
        with self._client.get_stream(address) as response:
            response.raise_for_status()
            meter = _Meter(self._note, file.filename, response.headers.get("Content-Length"))
            with writing(final) as stream:
                for chunk in response.iter_bytes(_CHUNK):
                    digest.update(chunk)
                    stream.write(chunk)
                    meter.add(len(chunk))
                if digest.hexdigest() != file.sha256:
                    raise _WrongContentError(f"served sha256 {digest.hexdigest()}")
        meter.finish()


class _Meter:
    """Counts bytes and seconds of one download and says so: at the start, now and then, and at the end."""

    def __init__(self, note: Callable[[str], None], name: str, length: str | None) -> None:
        self._note = note
        self._name = name
        self._total = f" of {_megabytes(int(length))}" if length is not None and length.isdigit() else ""
        self._bytes = 0
        self._started = self._noted = time.monotonic()

    def add(self, count: int) -> None:
        """Count a piece; a slow download says how far it is."""
        self._bytes += count
        now = time.monotonic()
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._note(f"fetching {self._name}: {_megabytes(self._bytes)}{self._total}")

    def finish(self) -> None:
        """Say what came and how long it took."""
        seconds = time.monotonic() - self._started
        self._note(f"fetched {self._name}: {_megabytes(self._bytes)} in {seconds:.1f} s")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def explain(error: httpx2.HTTPError | httpx2.InvalidURL | OSError) -> str:
    """Say what went wrong without the address, which may hold credentials."""
    if isinstance(error, httpx2.HTTPStatusError):
        return f"the server answers {error.response.status_code} {error.response.reason_phrase}"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.InvalidURL):
        return "is not an address"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


class _Overheard(logging.Handler):
    """Keeps what unearth would print: a server's refusal of a page is a warning there, not an error."""

    def __init__(self, setting: str, problems: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.setting = setting
        self.problems = problems
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self.problems.append(f"{self.setting}: {record.getMessage()}")


@contextlib.contextmanager
def _overheard(setting: str, problems: list[str]) -> Iterator[_Overheard]:
    handler = _Overheard(setting, problems)
    _LOGGER.addHandler(handler)
    try:
        yield handler
    finally:
        _LOGGER.removeHandler(handler)
