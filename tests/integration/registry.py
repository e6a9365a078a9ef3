"""A container registry of the tests' own, on loopback: where docker allows plain HTTP."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

SETTINGS = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
http: {{addr: "{address}"}}
"""


@contextlib.contextmanager
def serve_registry(folder: Path) -> Iterator[str]:
    """Serve a registry that keeps everything in `folder`; yields its address, host:port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder.mkdir()
    settings = folder / "config.yml"
    settings.write_text(SETTINGS.format(folder=folder, address=address))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
    try:
        _wait_for(address, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with contextlib.closing(HTTPConnection(address, timeout=30)) as connection:
                connection.request("GET", "/v2/")
                assert connection.getresponse().status == 200
                return
        except ConnectionError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])
