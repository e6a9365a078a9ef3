"""Package servers on loopback, each in a process of its own that is stopped by its id: a folder, pypiserver, devpi.

And one that misbehaves as it is told, in a thread.
"""

import base64
import contextlib
import email
import functools
import hashlib
import http.server
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "fern"
PASSWORD = "pa55-word-of-fern"  # noqa: S105 - of servers that live for a test
_SECONDS = 60


@contextlib.contextmanager
def running_folder(folder: Path) -> Iterator[str]:
    """Serve a folder as Python's own server does; yields its address."""
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with _running(argv, r"port (\d+)") as port:
        yield f"http://127.0.0.1:{port}/"


@contextlib.contextmanager
def running_pypiserver(folder: Path) -> Iterator[str]:
    """Serve a folder by pypiserver, which lets only USER list, fetch and upload; yields its address."""
    folder.mkdir(parents=True)
    digest = hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()
    folder.with_suffix(".htpasswd").write_text(f"{USER}:{{SHA}}{base64.b64encode(digest).decode()}\n")
    argv = [sys.executable, "-u", "-m", "pypiserver", "run", "--interface", "127.0.0.1", "--port", _free_port()]
    argv += ["--passwords", str(folder.with_suffix(".htpasswd")), "--authenticate", "list,download,update"]
    with _running([*argv, "--disable-fallback", str(folder)], r"Listening on http://127\.0\.0\.1:(\d+)/") as port:
        yield f"http://127.0.0.1:{port}/"


@dataclass(frozen=True)
class Devpi:
    """A running devpi server; `url` is its root."""

    url: str

    def make_index(self, name: str) -> str:
        """Make an index of USER that never changes a file; returns its address."""
        settings = {"volatile": False, "bases": [], "type": "stage"}
        self._put(f"{USER}/{name}", settings)
        return f"{self.url}{USER}/{name}"

    def make_user(self) -> None:
        """Make USER."""
        self._put(USER, {"password": PASSWORD}, login=False)

    def _put(self, path: str, body: object, *, login: bool = True) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        if login:
            request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")
        urllib.request.urlopen(request).close()  # noqa: S310 - our own server


@contextlib.contextmanager
def running_devpi(home: Path) -> Iterator[Devpi]:
    """Install devpi in an environment of its own, for it wants an older setuptools than we do, and run it."""
    python = home / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    subprocess.run([*install, "devpi-server>=6.14", "setuptools<81"], check=True)
    data, secret, port = home / "data", home / "secret", _free_port()
    secret.write_text(secrets.token_urlsafe(48))
    secret.chmod(0o600)
    program = str(python.with_name("devpi-server"))
    init = [str(python.with_name("devpi-init")), "--serverdir", str(data), "--no-root-pypi"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    argv = [program, "--serverdir", str(data), "--secretfile", str(secret), "--host", "127.0.0.1", "--port", port]
    with _running(argv, r"Serving on http://127\.0\.0\.1:(\d+)"):
        devpi = Devpi(f"http://127.0.0.1:{port}/")
        devpi.make_user()
        yield devpi


@contextlib.contextmanager
def _running(argv: list[str], ready: str) -> Iterator[str]:
    """Run a server until the block ends; yields what the group of `ready` found in its output."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stream = process.stdout
    assert stream is not None
    guard = threading.Timer(_SECONDS, process.kill)
    guard.start()
    drain: threading.Thread | None = None
    try:
        lines = []
        found = None
        for line in stream:
            lines.append(line)
            found = re.search(ready, line)
            if found is not None:
                break
        guard.cancel()
        assert found is not None, "".join(lines)
        drain = threading.Thread(target=stream.read, daemon=True)  # its log must not fill the pipe
        drain.start()
        _answer(int(found[1]))
        yield found[1]
    finally:
        guard.cancel()
        process.terminate()
        process.wait(30)
        if drain is not None:
            drain.join()
        stream.close()


def _answer(port: int) -> None:
    """Wait until the port answers: some servers say that they listen a moment before they do."""
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
        except urllib.error.HTTPError as answer:  # any answer is one
            answer.close()
        except OSError:
            time.sleep(0.1)
            continue
        return
    message = f"nothing answers on port {port}"
    raise AssertionError(message)


def _free_port() -> str:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return str(listener.getsockname()[1])


class _JsonPages(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(f"{path}index.json" if path.endswith("/") else path)

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        simple = "application/vnd.pypi.simple.v1+json"
        return simple if str(path).endswith("index.json") else super().guess_type(path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Keep quiet."""


@contextlib.contextmanager
def running_json_folder(folder: Path) -> Iterator[str]:
    """Serve a folder whose pages are index.json, as a web server that is told so does; yields its address."""
    handler = functools.partial(_JsonPages, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, _serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}/"


@contextlib.contextmanager
def _serving(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


class WaywardServer(http.server.ThreadingHTTPServer):
    """A package server that misbehaves as `manners` says.

    good: takes and lists, with hashes · bare: lists without hashes · half: keeps half of a file · forget: keeps
    nothing · cut: hangs up in the middle of an upload · broken: answers 500 · echo: repeats the request's headers in
    its refusal · elsewhere: sends who asks for a project to another host
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manners = "good"
        self.held: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.on_upload: Callable[[], object] = list

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


@contextlib.contextmanager
def running_wayward() -> Iterator[WaywardServer]:
    """Run a server that does as told."""
    with WaywardServer() as server, _serving(server):
        yield server


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WaywardServer
    timeout = 10

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        held = self.server.held
        if self.path == "/simple/":
            self._say(200, '<a href="fa3-fwd/">fa3-fwd</a>')
        elif self.path == "/simple/fa3-fwd/" and self.server.manners == "elsewhere":
            self.send_response(303)
            self.send_header("Location", "http://127.0.0.1:1/simple/fa3-fwd/")
            self.end_headers()
        elif self.path == "/simple/fa3-fwd/" and held:
            self._say(200, "".join(self._anchor(name, data) for name, data in held.items()))
        elif self.path.startswith("/files/") and self.path[7:] in held:
            self._say(200, held[self.path[7:]])
        else:
            self._say(404, "no such page")

    def do_POST(self) -> None:
        manners = self.server.manners
        self.server.on_upload()
        if manners == "cut":
            self.rfile.read(100)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body()
        if manners == "broken":
            self._say(500, "out of order")
        elif manners == "echo":
            password = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
            self._say(400, f"{self.headers} {password}")
        else:
            name, data = _uploaded(self.headers["Content-Type"], body)
            if manners != "forget":
                self.server.held[name] = data[: len(data) // 2] if manners == "half" else data
            self._say(200, "taken")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Keep quiet."""

    def _anchor(self, name: str, data: bytes) -> str:
        digest = "" if self.server.manners == "bare" else f"#sha256={hashlib.sha256(data).hexdigest()}"
        return f'<a href="/files/{name}{digest}">{name}</a>'

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _say(self, status: int, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _uploaded(content_type: str, body: bytes) -> tuple[str, bytes]:
    """The name and the bytes of the file in an upload's form."""
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    for part in message.walk():
        name = part.get_filename()
        data = part.get_payload(decode=True)
        if name is not None and isinstance(data, bytes):
            return name, data
    raise AssertionError(body[:200])
