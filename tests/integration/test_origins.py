"""Where things really come from: the configured package index, a server with all its moods, real compilers."""

import base64
import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from tests.integration.command import MakeHome

from hopperforge.config.project import load_project
from hopperforge.errors import SourceError, ToolError
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.toolkit import PinnedFile, ToolkitOrigin
from hopperforge.model.upstream import SdistOrigin, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.download import ATTEMPTS, fetch
from hopperforge.run.workspace import Workspace
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.source import fetch_source
from hopperforge.stages.toolkit import obtain_toolkit

pytestmark = pytest.mark.integration

NAME = "some-kit-1.0.tar.gz"
CONTENT = b"content " * 1000
PINNED = PinnedFile(project="some-kit", filename=NAME, sha256=hashlib.sha256(CONTENT).hexdigest())


def _workspace(tmp_path: Path, environ: dict[str, str]) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    workspace = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ=environ,
        reporter=recorder,
    )
    return workspace, recorder


def _offline(**pip: str) -> dict[str, str]:
    return {"PIP_CONFIG_FILE": "/dev/null", "PATH": os.environ["PATH"], **pip}


class _Index(BaseHTTPRequestHandler):
    """An index of one file that breaks the first `broken` downloads off, may want an account, and redirects."""

    broken: ClassVar[int] = 0
    account: ClassVar[str | None] = None
    pages: ClassVar[int] = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer a page or the file."""
        kind = type(self)
        kind.asked.append(self.path)
        wanted = None if kind.account is None else f"Basic {base64.b64encode(kind.account.encode()).decode()}"
        if wanted is not None and self.headers.get("Authorization") != wanted:
            self._answer(401, b"", {"WWW-Authenticate": "Basic"})
        elif self.path.endswith(NAME):
            short = kind.broken > 0
            kind.broken -= 1
            self._answer(200, CONTENT[: 100 if short else None], {"Content-Length": str(len(CONTENT))})
        elif self.path == "/simple/some-kit/":
            self._answer(302, b"", {"Location": "/moved/some-kit/"})
        else:
            self._answer(kind.pages, f'<a href="/files/{NAME}">{NAME}</a>'.encode(), {"Content-Type": "text/html"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _serving(**mood: object) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("_Moody", (_Index,), {"asked": asked, **mood})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_a_moved_page_is_followed(tmp_path: Path) -> None:
    with _serving() as (host, asked):
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=f"http://{host}/simple"))
        assert fetch(PINNED, workspace).read_bytes() == CONTENT
    assert asked == ["/simple/some-kit/", "/moved/some-kit/", f"/files/{NAME}"]


def test_a_download_that_breaks_off_is_tried_again(tmp_path: Path) -> None:
    with _serving(broken=ATTEMPTS - 1) as (host, _):
        workspace, recorder = _workspace(tmp_path, _offline(PIP_INDEX_URL=f"http://{host}/simple"))
        assert fetch(PINNED, workspace).read_bytes() == CONTENT
    assert [note.endswith("; trying again") for note in recorder.notes] == [True, True, False]


def test_a_download_that_always_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with _serving(broken=ATTEMPTS) as (host, _):
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=f"http://{host}/simple"))
        with pytest.raises(ToolError, match=f"{NAME} cannot be fetched") as caught:
            fetch(PINNED, workspace)
    assert caught.value.detail[0].startswith("index-url: ")
    assert [path.suffix for path in workspace.files.rglob("*") if path.is_file()] == [".lock"]


def test_credentials_of_the_index_are_used(tmp_path: Path) -> None:
    with _serving(account="user:secret") as (host, _):
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=f"http://user:secret@{host}/simple"))
        assert fetch(PINNED, workspace).read_bytes() == CONTENT


@pytest.mark.parametrize("mood", [{"account": "user:other"}, {"pages": 503}, {"pages": 404}])
def test_a_refusal_is_said_without_the_credentials(mood: dict[str, object], tmp_path: Path) -> None:
    with _serving(**mood) as (host, _):
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=f"http://user:secret@{host}/simple"))
        with pytest.raises(ToolError) as caught:
            fetch(PINNED, workspace)
    status = str(mood.get("pages", 401))
    assert caught.value.detail[0].startswith("index-url: ")
    assert status in caught.value.detail[0]
    assert "secret" not in str(caught.value)


def test_nobody_at_the_address_is_said_and_the_next_place_is_asked(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/simple"
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=dead))
        with pytest.raises(SourceError) as caught:
            fetch(PINNED, workspace, unreachable=SourceError)
        assert caught.value.detail[0] == "index-url: [Errno 111] Connection refused"
        (tmp_path / NAME).write_bytes(CONTENT)
        workspace, _ = _workspace(tmp_path, _offline(PIP_INDEX_URL=dead, PIP_FIND_LINKS=str(tmp_path)))
        assert fetch(PINNED, workspace).read_bytes() == CONTENT


def _from_sdist_alone(pin: UpstreamPin) -> UpstreamPin:
    origins = tuple(origin for origin in pin.origins if isinstance(origin, SdistOrigin))
    return UpstreamPin(name=pin.name, commit=pin.commit, epoch=pin.epoch, trees=pin.trees, origins=origins)


@pytest.mark.timeout(300)
def test_every_pin_comes_from_the_package_index_with_the_pinned_trees(project_root: Path, tmp_path: Path) -> None:
    pins = load_project(project_root).pins
    assert pins
    for pin in pins.values():
        workspace, recorder = _workspace(tmp_path, dict(os.environ))
        source = fetch_source(_from_sdist_alone(pin), workspace)
        assert source.origin.startswith("sdist ")
        assert (source.root / "hopper" / "flash_api_stable.cpp").is_file()
        assert (source.root / "csrc/cutlass/include/cute/tensor.hpp").is_file()
        assert (source.root / "csrc/cutlass/LICENSE.txt").is_file()
        assert any(note.startswith("fetched ") for note in recorder.notes)


@pytest.fixture(scope="module")
def toolkits_cache(make_home: MakeHome) -> Path:
    """One cache for all toolkits: those with another ptxas are made from the plain one."""
    return make_home("toolkits")


REGISTRY = [
    str(fact.version)
    for fact in load_project(Path(__file__).parents[2]).matrix.toolkits.values()
    if ToolkitOrigin.REGISTRY in fact.origins
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", REGISTRY)
def test_a_registry_toolkit_compiles_for_the_gpu_and_links(
    name: str, project_root: Path, toolkits_cache: Path, tmp_path: Path
) -> None:
    fact = load_project(project_root).matrix.toolkits[ToolkitVersion.parse(name)]
    workspace, _ = _workspace(toolkits_cache, dict(os.environ))
    toolkit = obtain_toolkit(fact, ToolkitChoice.REGISTRY, workspace)
    assert toolkit.release == fact.release
    compiler = find_host_compiler(os.environ, fact.gcc_max)
    (tmp_path / "k.cu").write_text(
        "#include <cuda/std/cstdint>\n"
        "__global__ void fill(cuda::std::uint32_t *p) {\n"
        '  asm volatile("wgmma.fence.sync.aligned;");\n'  # sm_90a alone has it
        "  p[threadIdx.x] = threadIdx.x;\n"
        "}\n"
        "int main() { fill<<<1, 128>>>(nullptr); return cudaGetLastError() == cudaSuccess ? 0 : 3; }\n"
    )
    target = ("-gencode", "arch=compute_90a,code=sm_90a")
    command = [str(toolkit.nvcc), "-ccbin", str(compiler.path), *target, "-cudart", "static", "k.cu", "-o", "k"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    needed = subprocess.run(["readelf", "-d", "k"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "libcudart" not in needed
