"""moto's server with what S3 promises and moto does not keep: a conditional write looks and writes in one step."""

import contextlib
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneWriteAtATime:
    """moto's application, entered by one writer at a time."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._moto.debug = True  # type: ignore[attr-defined] # as moto's own main does
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        with contextlib.nullcontext() if reads else self._lock:
            return list(self._moto(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", 0, OneWriteAtATime(), threaded=True, request_handler=MotoRequestHandler)
