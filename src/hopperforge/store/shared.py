"""This machine's objects together with those of a store that machines share.

Read: this machine's store first, then the shared one, from where an object is copied here. Write: here, then there,
where whoever came first stays. A shared store is a help, never a need: one that does not answer is named once, and the
run goes on with this machine's store alone.
"""

import errno
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as Backend

from hopperforge.errors import StorageError
from hopperforge.model.pack import Cost, PackedUnit
from hopperforge.model.place import StorePlace
from hopperforge.report import Reporter
from hopperforge.run.workspace import Workspace
from hopperforge.store.objects import ObjectStore
from hopperforge.store.trimming import OBJECTS

if TYPE_CHECKING:  # these exist for type checkers alone
    from obstore.store import ClientConfig, RetryConfig

_T = TypeVar("_T")

# What obstore waits by default, three minutes of retries, is more than many objects cost to compile.
_RETRIES: Final["RetryConfig"] = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_REQUEST_TIMEOUT: Final = timedelta(seconds=60)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
_ALLOW_HTTP: Final = "AWS_ALLOW_HTTP"  # the name other tools know; options given in words take its place in obstore
_AT_ONCE: Final = 16
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def open_shared(place: StorePlace, environ: Mapping[str, str], reporter: Reporter) -> ObjectStore:
    """Open the store at `place` and ask whether it answers; StorageError, within seconds, if it does not.

    Credentials are obstore's business alone: it reads the AWS_* and GOOGLE_* variables of the process itself.
    """
    folder = place.folder
    if folder is not None:
        if not folder.is_dir():  # to make it would hide that the disk behind it is not mounted
            raise StorageError(f"there is no folder {folder}", hint=f"mkdir -p {folder}")
        store = ObjectStore(LocalStore(folder), place=folder, reporter=reporter)
    else:
        store = ObjectStore(open_bucket(place, environ), place=str(place), reporter=reporter)
    store.probe()
    return store


def open_bucket(
    place: StorePlace, environ: Mapping[str, str], *, request_timeout: timedelta = _REQUEST_TIMEOUT
) -> Backend:
    """Open a bucket, asking it nothing yet; StorageError if its address or the settings in `environ` are no good."""
    options: ClientConfig = {"connect_timeout": _CONNECT_TIMEOUT, "timeout": request_timeout}
    plain = {name: environ[name] for name in _ENDPOINTS if environ.get(name, "").startswith("http://")}
    trusted = environ.get(_ALLOW_HTTP, "").lower() == "true"
    for name, url in plain.items():
        if not trusted and not _is_loopback(url):
            raise StorageError(
                f"{name} is plain http to another machine, where objects could be changed on their way",
                hint=f"export {_ALLOW_HTTP}=true   # if that network is to be trusted",
            )
    if plain:
        options["allow_http"] = True
    try:
        return from_url(str(place), client_options=options, retry_config=_RETRIES)
    except BaseError as error:
        raise StorageError(f"{place} cannot be opened: {str(error).splitlines()[0]}") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Shared:
    """The shared store for as long as it answers: the first failure is said once in a run and ends its use."""

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.shared
        self._environ = workspace.environ
        self._outages = workspace.outages
        self._reporter = workspace.reporter
        self._store: ObjectStore | None = None

    def give(self, put: Callable[[ObjectStore], _T]) -> _T | None:
        """Put something into the store; None as in `ask`, or if we may read it only, which does not end its use."""
        writing = f"{self._place}, writing"
        if self._outages.known(writing):
            return None

        def unless_denied(store: ObjectStore) -> _T | None:
            try:
                return put(store)
            except StorageError as error:
                if not _is_denied(error):
                    raise
                if self._outages.begin(writing):
                    self._reporter.warn(
                        f"the shared store {self._place} is only read: what is compiled here stays here: {_line(error)}"
                    )
                return None

        return self.ask(unless_denied)

    def ask(self, question: Callable[[ObjectStore], _T]) -> _T | None:
        """Put a question to the store; None too if there is no store, or none that answers."""
        place = self._place
        if place is None or self._outages.known(str(place)):
            return None
        try:
            if self._store is None:
                self._store = open_shared(place, self._environ, self._reporter)
            return question(self._store)
        except (StorageError, OSError) as error:
            if self._outages.begin(str(place)):
                self._reporter.warn(
                    f"the shared store {place} is left out from here on, and the run goes on with this machine's"
                    f" own objects: {_line(error)}"
                )
            return None


def _line(error: Exception) -> str:
    return str(error).replace("\n", "; ")


def _is_denied(error: StorageError) -> bool:
    """Whether the store answered, and would not let us."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _DENIED
    return isinstance(cause, PermissionDeniedError | UnauthenticatedError)


def local_objects(workspace: Workspace) -> Path:
    """The folder of this machine's objects."""
    return workspace.store / OBJECTS


def held(keys: Iterable[str], workspace: Workspace) -> frozenset[str]:
    """Which of `keys` have an object here or in the shared store; nothing is read or written: for plans."""
    wanted = list(keys)
    folder = local_objects(workspace)
    here: set[str] = set()
    if folder.is_dir():  # to open a store makes its folder
        local = ObjectStore.local(folder, workspace.reporter)
        here = {key for key in wanted if local.holds(key)}
    shared = _Shared(workspace)
    elsewhere = [key for key in wanted if key not in here]
    answers = _at_once(lambda key: shared.ask(lambda store: store.holds(key)), elsewhere)
    return frozenset(here | {key for key, answer in zip(elsewhere, answers, strict=True) if answer})


def _at_once(work: Callable[[str], _T], keys: Sequence[str]) -> list[_T]:
    """`work` of each key, in their order; waiting for a store costs time and no core, so many wait side by side."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(work, keys))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for what is on its way, not for all


class SharedObjects:
    """The objects of this machine, and behind them those of the shared store, if there is one and it answers.

    Two machines may compile the same unit at the same time; whose object reaches the shared store first gives it to
    both. On one machine the lock of the key sees to it that a unit is compiled once.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._local = ObjectStore.local(local_objects(workspace), workspace.reporter)
        self._shared = _Shared(workspace)

    def find(self, key: str) -> PackedUnit | None:
        """The entry of a key whose object is here, read and hashed just now; copied here first if it is there only."""
        found = self._load(key)
        return None if found is None else found[0]

    def read(self, key: str) -> bytes | None:
        """The bytes of a key, checked; None if they are nowhere, or were damaged, which is reported."""
        found = self._load(key)
        return None if found is None else found[1]

    def _load(self, key: str) -> tuple[PackedUnit, bytes] | None:
        found = self._local.load(key)
        if found is not None:
            return found
        fetched = self._shared.ask(lambda store: store.load(key))
        if fetched is None:
            return None
        entry, data = fetched
        standing = self._local.put(key, data, path=entry.path, cost=entry.cost)
        return (standing, data) if standing.sha256 == entry.sha256 else self._local.load(key)

    def find_all(self, keys: Iterable[str]) -> Mapping[str, PackedUnit]:
        """As `find`, of many keys; those not found are left out."""
        wanted = list(keys)
        found = zip(wanted, _at_once(self.find, wanted), strict=True)
        return {key: entry for key, entry in found if entry is not None}

    def put(self, key: str, data: bytes, *, path: str, cost: Cost | None) -> PackedUnit:
        """Keep the object of unit `path` here and there, and return what now stands under `key`.

        Of different bytes those that were there first stay, and are taken here too.
        """
        mine = self._local.put(key, data, path=path, cost=cost)
        if mine.sha256 != hashlib.sha256(data).hexdigest():
            return mine  # other bytes were here before, and went to the shared store then
        first = self._shared.give(lambda store: store.put(key, data, path=path, cost=cost))
        if first is None or first.sha256 == mine.sha256:
            return mine
        fetched = self._shared.ask(lambda store: store.load(key))
        if fetched is None:
            return mine
        return self._local.replace(key, fetched[1], path=path, cost=fetched[0].cost)
