"""An S3 server on loopback: moto's, in a process of its own, stopped by its id."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

_READY = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class S3Server:
    """A running server; `url` is its endpoint."""

    url: str

    def make_bucket(self, name: str, *, public: bool = False) -> S3Store:
        """Make a bucket, one that everybody may read if `public`, and open it by means of our own, to do damage."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()  # noqa: S310 - our URL
        if public:
            allowed = {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{name}/*",
            }
            policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]}).encode()
            request = urllib.request.Request(  # noqa: S310 - our URL
                f"{self.url}/{name}?policy", policy, {"Content-Type": "application/json"}, method="PUT"
            )
            urllib.request.urlopen(request).close()  # noqa: S310 - our URL
        return S3Store(
            name,
            endpoint=self.url,
            access_key_id="test",
            secret_access_key="test",  # noqa: S106 - the server takes any
            client_options={"allow_http": True},
        )

    def trust_nobody(self, *, really: bool) -> None:
        """Let in only keys that the server gave out, which are none; or anyone again."""
        request = urllib.request.Request(  # noqa: S310 - our URL
            f"{self.url}/moto-api/reset-auth",
            method="POST",
            data=b"0" if really else b"inf",
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request).close()  # noqa: S310


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    """Start a server on a free port and stop it at the end."""
    argv = [sys.executable, str(Path(__file__).with_name("s3_process.py"))]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    stream = process.stderr
    assert stream is not None
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        lines = []
        ready = None
        for line in stream:
            lines.append(line)
            ready = _READY.search(line)
            if ready is not None:
                break
        guard.cancel()  # it guards the start alone: a module's tests may take longer
        assert ready is not None, "".join(lines)
        drain = threading.Thread(target=stream.read, daemon=True)  # its log must not fill the pipe
        drain.start()
        yield S3Server(url=ready[1])
    finally:
        guard.cancel()
        process.terminate()
        process.wait(30)
        stream.close()


def names(bucket: S3Store) -> list[str]:
    """The names of everything in a bucket."""
    return sorted(meta["path"] for page in obstore.list(bucket) for meta in page)
