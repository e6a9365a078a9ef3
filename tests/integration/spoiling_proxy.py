"""An HTTP proxy in front of a server on loopback that spoils chosen requests."""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass(frozen=True)
class Cut:
    """Reads half of what is sent, and hangs up."""


@dataclass(frozen=True)
class Deny:
    """Answers that this is not allowed, as S3 does."""


Spoil = Callable[[str, str], Cut | Deny | None]


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection; the proxy's own class says for which server, and what is spoiled."""

    host: str
    spoil: Spoil

    def do(self) -> None:
        """Answer a request, or spoil it."""
        size = int(self.headers.get("Content-Length", 0))
        match type(self).spoil(self.command, self.path):
            case Cut():
                self.rfile.read(size // 2)
                self.close_connection = True
            case Deny():
                self.rfile.read(size)
                self.answer(403, {"Content-Type": "application/xml"}, DENIED)
            case None:
                self.forward(self.rfile.read(size))

    def forward(self, body: bytes) -> None:
        """Answer what the server does."""
        connection = http.client.HTTPConnection(self.host)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        self.answer(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815


@contextlib.contextmanager
def spoiling(server: str, spoil: Spoil) -> Iterator[str]:
    """Run a proxy in front of `server`; `spoil` is asked of each method and path what becomes of it."""
    handler = type("Handler", (_Handler,), {"host": urlsplit(server).netloc, "spoil": staticmethod(spoil)})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
