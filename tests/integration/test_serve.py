"""The real server on loopback, asked as no well-behaved client asks, and stopped in the middle of its work."""

import base64
import hashlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.integration.command import Running
from tests.integration.serving import serving

from hopperforge.run.serve import SIMPLE_JSON

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-the-tests"  # noqa: S105
LARGE = 64_000_000
FILE = "tiny-1.0+cu124-py3-none-any.whl"
PARTS = {
    "tiny.py": b"",
    "tiny-1.0+cu124.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0+cu124\n",
    "tiny-1.0+cu124.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny-1.0+cu124.dist-info/RECORD": b"",
}


def tiny_wheel() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in PARTS.items():
            archive.writestr(name, data)
    return made.getvalue()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of one tiny wheel and one large file, beside something it must not give away."""
    home = tmp_path_factory.mktemp("serve")
    (home / "secret.txt").write_text("secret")
    folder = home / "index"
    page = folder / "cu124" / "simple" / "tiny"
    pool = folder / "pool" / "tiny"
    for made in (page, pool):
        made.mkdir(parents=True)
    wheel = tiny_wheel()
    (pool / FILE).write_bytes(wheel)
    (folder / "index.html").write_text("<title>people</title>")
    # What an installer gets tells which form of the page it asked for: the file is named in the JSON form alone.
    (page / "index.html").write_text("<title>no file</title>")
    url = "../../../pool/tiny/" + FILE.replace("+", "%2B")
    link = {"filename": FILE, "url": url, "hashes": {"sha256": hashlib.sha256(wheel).hexdigest()}}
    document = {"meta": {"api-version": "1.0"}, "name": "tiny", "files": [link]}
    (page / "index.json").write_text(json.dumps(document))
    with (pool / "large.whl").open("wb") as stream:
        stream.truncate(LARGE)
    return folder


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    with serving(index, index.parent) as found:
        yield found


def ask(address: str, text: str) -> bytes:
    """Send bytes as they are and read the answer to its end."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=20) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return answer


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/cu124/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "//../../secret.txt",
        "http://other/../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/index.html%00",
        "/pool/tiny/../../../secret.txt?x=/index.html",
    ],
)
def test_a_path_to_the_outside_is_refused_whoever_writes_it(address: str, target: str) -> None:
    answer = ask(address, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("NONSENSE\r\n\r\n", b"400"),
        ("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        ("PUT /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000000\r\n\r\n", b"413"),
        ("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
        ("GET / HTTP/1.0\r\n\r\n", b"200"),
    ],
    ids=["nonsense", "post", "large-body", "head", "http-1.0"],
)
def test_what_is_no_plain_request_is_answered_too(address: str, request_text: str, status: bytes) -> None:
    answer = ask(address, request_text)
    assert answer.split(b" ")[1] == status
    if request_text.startswith("HEAD"):
        assert answer.endswith(b"\r\n\r\n")
        assert b"Content-Length: 21" in answer


def test_a_download_goes_on_where_it_stopped(address: str) -> None:
    url = f"{address}pool/tiny/large.whl"
    with urllib.request.urlopen(url) as first:  # noqa: S310 - our own address
        etag = first.headers["ETag"]
        assert len(first.read(1000)) == 1000
    rest = urllib.request.Request(url, headers={"Range": f"bytes={LARGE - 10}-", "If-Range": etag})  # noqa: S310
    with urllib.request.urlopen(rest) as second:  # noqa: S310 - our own address
        assert second.status == 206
        assert second.headers["Content-Range"] == f"bytes {LARGE - 10}-{LARGE - 1}/{LARGE}"
        assert second.read() == bytes(10)
    again = urllib.request.Request(url, headers={"If-None-Match": etag})  # noqa: S310 - our own address
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        urllib.request.urlopen(again)  # noqa: S310 - our own address
    assert unchanged.value.code == 304
    unchanged.value.close()


def test_readers_who_do_not_read_keep_nobody_waiting(address: str) -> None:
    parts = urlsplit(address)
    request = b"GET /pool/tiny/large.whl HTTP/1.1\r\nHost: x\r\n\r\n"
    stuck = [socket.create_connection((parts.hostname, parts.port or 0), timeout=20) for _ in range(40)]
    try:
        for connection in stuck:
            connection.sendall(request)
            assert connection.recv(12) == b"HTTP/1.1 200"
        start = time.monotonic()
        with urllib.request.urlopen(address, timeout=20) as page:  # noqa: S310 - our own address
            assert page.read() == b"<title>people</title>"
        assert time.monotonic() - start < 5
    finally:
        for connection in stuck:
            connection.close()


def test_many_read_at_once_and_get_the_same_bytes(address: str) -> None:
    digests = []

    def read() -> None:
        with urllib.request.urlopen(f"{address}pool/tiny/large.whl") as answer:  # noqa: S310 - our own address
            digests.append(hashlib.file_digest(answer, "sha256").hexdigest())

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [hashlib.sha256(bytes(LARGE)).hexdigest()] * 12


def test_pip_takes_the_json_form_and_shows_the_token(index: Path, tmp_path: Path) -> None:
    with serving(index, tmp_path, env={"HOPPERFORGE_SERVE_TOKEN": TOKEN}) as address:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address)  # noqa: S310 - our own address
        assert refused.value.code == 401
        refused.value.close()
        with_token = address.replace("http://", f"http://any:{TOKEN}@")
        options = [
            "--isolated",
            "--no-deps",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "-q",
            "-d",
            str(tmp_path),
        ]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "-i", f"{with_token}cu124/simple/", "tiny==1.0"],
            check=True,
            timeout=60,
        )
        accept = {"Accept": SIMPLE_JSON, "Authorization": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()}
        page = urllib.request.Request(f"{address}cu124/simple/tiny/", headers=accept)  # noqa: S310 - our own address
        with urllib.request.urlopen(page) as answer:  # noqa: S310 - our own address
            assert answer.headers["Content-Type"] == SIMPLE_JSON
    assert (tmp_path / FILE).read_bytes() == (index / "pool" / "tiny" / FILE).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_even_while_it_sends(index: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = Running(
        "serve", f"folder={index}", "port=0", "--verbose", home=tmp_path, env={"HOPPERFORGE_SERVE_TOKEN": None}
    )
    address = "http://" + command.wait_for("http://").partition("http://")[2].split()[0]
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=20) as reader:
        reader.sendall(b"GET /pool/tiny/large.whl HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(12) == b"HTTP/1.1 200"
        start = time.monotonic()
        assert command.send(number) == 0
        assert time.monotonic() - start < 30
    assert any(line.endswith("stopped") for line in command.lines)
    assert not any("Traceback" in line for line in command.lines)
    assert any("GET /pool/tiny/large.whl 200" in line for line in command.lines)
    with socket.create_server((parts.hostname or "", parts.port or 0), reuse_port=False):
        pass  # the port is free again
    assert (index / "pool" / "tiny" / "large.whl").stat().st_size == LARGE
