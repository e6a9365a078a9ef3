"""A published index over HTTP for a laboratory: static, read-only, and nothing outside its folder.

What of a request is decided here, between waitress (connections, threads, limits) and werkzeug (ranges, conditional
requests, headers): which file answers it, in which form, and who may have it. There is no TLS; docs/how-to/serve.md
says what to use beyond a laboratory.
"""

import hmac
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote

from waitress.server import create_server
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_accept_header
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import wrap_file

from hopperforge.errors import InputError
from hopperforge.index.whole import cache_control, content_type

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

SIMPLE_JSON: Final = "application/vnd.pypi.simple.v1+json"

_HTML: Final = "text/html"

# The forms of a project's page (PEP 691): what is asked for, and the file that is. Of equals the first is taken.
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    _HTML: ("index.html", "text/html; charset=utf-8"),
    SIMPLE_JSON: ("index.json", SIMPLE_JSON),
    "application/vnd.pypi.simple.latest+json": ("index.json", SIMPLE_JSON),
    "application/vnd.pypi.simple.v1+html": ("index.html", "application/vnd.pypi.simple.v1+html"),
    "application/vnd.pypi.simple.latest+html": ("index.html", "application/vnd.pypi.simple.v1+html"),
}

_HEADERS: Final[Mapping[str, str]] = {
    # Pages bring their own style and script; nothing of them may call another place or be shown within one.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A file that answers a request: where it is, its name in the index, its type, and whether there was a choice."""

    path: Path
    name: str
    content_type: str
    negotiated: bool = False


class StaticSite:
    """A WSGI application that answers GET and HEAD with the files of one folder.

    `token` is what everyone must show, None for no one; `log` is told of every request in one line, without headers.
    """

    def __init__(self, folder: Path, *, token: str | None, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._token = token
        self._log = log

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        response = self._respond(request)
        response.headers.update(_HEADERS)
        if request.method == "HEAD" or response.status_code == HTTPStatus.NOT_MODIFIED:
            response.close()  # no body is sent, so nobody else would close the file
        self._log(f"{request.remote_addr} {request.method} {quote(request.path)} {response.status_code}")
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        if not self._may_read(request):
            response = _refusal(HTTPStatus.UNAUTHORIZED, "this index asks for a token")
            response.headers["WWW-Authenticate"] = 'Basic realm="hopperforge index", charset="UTF-8"'
            return response
        if request.method not in ("GET", "HEAD"):
            response = _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this index can only be read")
            response.headers["Allow"] = "GET, HEAD"
            return response
        # PATH_INFO holds the bytes of the path as latin-1 (PEP 3333); werkzeug would replace what is not UTF-8.
        found = find_file(self._folder, request.environ.get("PATH_INFO", ""), request.headers.get("Accept", ""))
        match found:
            case str():
                response = _refusal(HTTPStatus.PERMANENT_REDIRECT, "the page is at its name with a slash")
                response.headers["Location"] = found
                return response
            case Answer():
                return self._send(request, found)
            case None:
                return _refusal(HTTPStatus.NOT_FOUND, "there is no such file")

    def _may_read(self, request: Request) -> bool:
        """Compare the token shown, as the password of any user or as a bearer, in the same time whatever it is."""
        if self._token is None:
            return True
        shown = request.authorization
        given = "" if shown is None else (shown.token if shown.type == "bearer" else shown.password) or ""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _send(self, request: Request, answer: Answer) -> Response:
        stream = _open_regular(answer.path)
        if stream is None:
            return _refusal(HTTPStatus.NOT_FOUND, "there is no such file")
        status = os.fstat(stream.fileno())
        body = wrap_file(request.environ, stream)
        response = Response(body, content_type=answer.content_type, direct_passthrough=True)
        response.content_length = status.st_size
        response.last_modified = int(status.st_mtime)  # type: ignore[assignment]
        # Files are replaced by renaming, so these three name the bytes.
        response.set_etag(f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}")
        self._allow_caching(response, answer)
        if "," in request.headers.get("Range", ""):
            del request.environ[
                "HTTP_RANGE"
            ]  # several ranges at once may be ignored (RFC 9110), and nobody asks for them
        try:
            return response.make_conditional(request.environ, accept_ranges=True, complete_length=status.st_size)
        except RequestedRangeNotSatisfiable:
            response.close()
            refusal = _refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {status.st_size} bytes")
            refusal.headers["Content-Range"] = f"bytes */{status.st_size}"
            return refusal

    def _allow_caching(self, response: Response, answer: Answer) -> None:
        if answer.negotiated:
            response.vary.add("Accept")
        caching = cache_control(answer.name)
        if self._token is not None:  # what was shown to one reader is not to be kept for others on the way
            caching = f"private, {caching.removeprefix('public, ')}"
        response.headers["Cache-Control"] = caching


def find_file(folder: Path, path_info: str, accept: str) -> Answer | str | None:
    """Say what answers a path: a file of `folder`, the address to go to instead, or nothing.

    Names that begin with a dot do not exist here, and neither does what a symbolic link leads to outside of `folder`,
    which itself may be one.
    """
    try:
        path = path_info.encode("latin-1").decode()
        names = [name for name in path.split("/") if name]
        place = folder.joinpath(*names).resolve(strict=True)
        inside = place.is_relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):  # no UTF-8, a NUL, not there, a name too long, a loop of links
        return None
    if not inside or any(name.startswith(".") for name in names):
        return None
    if place.is_dir():
        return _page(place, names, accept) if path.endswith("/") or not names else f"{quote(f'./{names[-1]}')}/"
    name = "/".join(names)
    return None if path.endswith("/") else Answer(path=place, name=name, content_type=content_type(name))


def _page(folder: Path, names: Sequence[str], accept: str) -> Answer | None:
    """Choose between the forms of a folder's page; a folder without one is not listed."""
    if not (folder / "index.html").is_file():
        return None
    negotiated = (folder / "index.json").is_file()
    form = parse_accept_header(accept, MIMEAccept).best_match(_FORMS, default=_HTML) if negotiated else _HTML
    file, given = _FORMS[form]
    return Answer(path=folder / file, name="/".join((*names, file)), content_type=given, negotiated=negotiated)


def _open_regular(path: Path) -> IO[bytes] | None:
    """Open a regular file; None for anything else and for what cannot be read, and a pipe is not waited for."""
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    return None


def _refusal(status: HTTPStatus, sentence: str) -> Response:
    return Response(f"{status.value}: {sentence}\n", status=status.value, mimetype="text/plain")


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, port 0 for any free one; InputError if that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"host={host} port={port} cannot be listened on: {reason}", hint="host=127.0.0.1 port=0   # any free port"
        ) from error


def address(listening: socket.socket) -> str:
    """Write where a socket can be reached: this machine's name where it listens on all addresses."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - asked, not bound
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(site: StaticSite, listening: socket.socket) -> None:
    """Answer requests until Ctrl-C; what is being sent then has five seconds to end."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait a moment is no news
    with listening:
        server = create_server(
            site,
            sockets=[listening],
            threads=32,  # one is held by each slow reader of a range, none by readers of whole files
            connection_limit=500,
            asyncore_use_poll=True,
            max_request_body_size=1024,  # nobody has anything to send
            ident="hopperforge",
        )
        server.run()
        server.close()
