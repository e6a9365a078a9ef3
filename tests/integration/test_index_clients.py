"""The documented lines, typed into a shell, with real installers and real servers.

Each line must bring the right file for CUDA 12 and 13 and for torch 2.6 and 2.11, whatever else the machine's settings
name: an index with a higher version of our name, and with other bytes under our very file name.
"""

import contextlib
import html.parser
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.integration.clients import CLIENTS, HTML_ONLY, Client, Machine, hostile, login, make_client
from tests.integration.package_servers import (
    PASSWORD,
    USER,
    running_devpi,
    running_folder,
    running_json_folder,
    running_pypiserver,
)
from tests.integration.s3_server import S3Server
from tests.integration.shelves import shelve, tiny_members
from tests.unit import publish_zoo, wheel_zoo

from hopperforge.errors import PublishError
from hopperforge.index.catalog import Entry
from hopperforge.index.commands import Installation, installation, installation_from_server
from hopperforge.index.flat import Machines
from hopperforge.model.place import StorePlace
from hopperforge.model.versions import CudaVersion, TorchVersion
from hopperforge.report import Recorder
from hopperforge.run.upload_server import ServerAddress, open_server
from hopperforge.run.workspace import Workspace
from hopperforge.stages.publish import publish
from hopperforge.stages.upload import upload
from hopperforge.store.targets import open_target

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Node:
    """A machine to install on, and the version that is right for it."""

    cuda: str
    torch: str
    right: str

    @property
    def machines(self) -> Machines:
        """As an upload index is told whom it is for."""
        torch = TorchVersion.parse(self.torch)
        return Machines(cuda=CudaVersion.parse(self.cuda), torch=torch if self.torch == "2.6" else None)


NODES = (
    Node("12.8", "2.11", "3.0.0+cu124"),
    Node("13.0", "2.11", "3.0.0+cu130"),
    Node("12.8", "2.6", "3.0.0+cu124torch2.6"),
)
SHELVED = {
    "3.0.0+cu124": ("2.9", "2.11"),
    "3.0.0+cu130": ("2.11",),
    "3.0.0+cu124torch2.6": ("2.6",),
    "3.0.0+cu124.hdim128.bf16": ("2.9", "2.11"),
}
Lines = Callable[[Node], Installation]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose wheelhouse holds a package of each kind."""
    folder = tmp_path_factory.mktemp("publisher")
    for version, torches in SHELVED.items():
        profile = "hdim128-bf16" if "hdim128" in version else "fa3-fwd"
        shelve(folder / "wheelhouse", version, *torches, profile=profile)
    login = {"UV_PUBLISH_USERNAME": USER, "UV_PUBLISH_PASSWORD": PASSWORD}
    made = wheel_zoo.workspace(folder)
    return replace(made, environ={**made.environ, **login}, reporter=Recorder())


@pytest.fixture(scope="module")
def site(workspace: Workspace, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheelhouse published to a folder."""
    folder = tmp_path_factory.mktemp("site") / "index"
    _publish(str(folder), workspace, project_root)
    return folder


def _publish(place: str, workspace: Workspace, project_root: Path) -> None:
    parcels = publish_zoo.parcels(workspace.wheelhouse, publish_zoo.project(project_root))
    publish(open_target(StorePlace.parse(place), workspace), parcels)


@pytest.fixture(scope="module")
def entries(site: Path, workspace: Workspace) -> Mapping[str, Entry]:
    """The entries of the catalog, by version."""
    catalog = publish_zoo.catalog_of(open_target(StorePlace.parse(str(site)), workspace))
    return {entry.version: entry for entry in catalog.packages}


@pytest.fixture(scope="module")
def folder_server(site: Path) -> Iterator[str]:
    with running_folder(site) as url:
        yield url


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Settings that lead to a foreign index with a higher version, and with other bytes under every name of ours."""
    root = tmp_path_factory.mktemp("foreign")
    page = root / "simple" / "fa3-fwd"
    for version in ("99.0", *SHELVED):
        members = tiny_members(version, "torch", extra=f"which = 'foreign-{version}'\n")
        wheel_zoo.write(page, members, name=f"fa3_fwd-{version}-{wheel_zoo.TAG}.whl")
    links = (f'<a href="{path.name.replace("+", "%2B")}">{path.name}</a>' for path in page.glob("*.whl"))
    (page / "index.html").write_text("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>")
    with running_folder(root) as url:
        yield hostile(f"{url}simple/")


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return make_client(request.param, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def machines(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Node, Machine]:
    """Each node as a machine, on which only `client` installs."""
    return {node: Machine(tmp_path_factory.mktemp(client.name), node.torch) for node in NODES}


@pytest.fixture
def on(machines: Mapping[Node, Machine]) -> Mapping[Node, Machine]:
    """The machines, with nothing installed but torch."""
    for machine in machines.values():
        machine.forget()
    return machines


@pytest.fixture(scope="module")
def index_lines(entries: Mapping[str, Entry]) -> Callable[[str], Lines]:
    """Make the lines for a node from an index of our own at an address."""

    def at(url: str) -> Lines:
        return lambda node: installation(
            entries[node.right], url, CudaVersion.parse(node.cuda), TorchVersion.parse(node.torch)
        )

    return at


def ways(lines: Installation, client: Client) -> tuple[str, str]:
    """The two lines for an installer."""
    return (lines.uv, lines.uv_by_page) if client.kind == "uv" else (lines.pip, lines.pip_by_page)


def assert_right_file_everywhere(
    make_lines: Lines, client: Client, on: Mapping[Node, Machine], settings: Mapping[str, str], *, both: bool = False
) -> None:
    """Type a line of each way on machines in turn, or `both` on every machine; the machines work side by side."""

    def check(node: Node) -> None:
        lines = ways(make_lines(node), client)
        for line in lines if both else [lines[NODES.index(node) % 2]]:
            on[node].forget()
            ended = on[node].run(line, client, settings)
            assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
            assert on[node].installed() == node.right, line

    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(check, NODES))


def test_from_a_folder(
    folder_server: str,
    index_lines: Callable[[str], Lines],
    client: Client,
    on: Mapping[Node, Machine],
    foreign: Mapping[str, str],
) -> None:
    assert_right_file_everywhere(index_lines(folder_server), client, on, foreign, both=True)


@pytest.fixture(scope="module")
def bucket_server(workspace: Workspace, project_root: Path, s3: S3Server) -> Iterator[str]:
    """The wheelhouse published to S3; yields the address of the index over http."""
    with pytest.MonkeyPatch.context() as patch:
        s3.make_bucket("clients", public=True)
        given = {"AWS_ENDPOINT_URL": s3.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        for name, text in {**given, "AWS_REGION": "us-east-1"}.items():
            patch.setenv(name, text)  # obstore reads them from the process itself
        _publish("s3://clients/fa3", replace(workspace, environ=dict(os.environ)), project_root)
        yield f"{s3.url}/clients/fa3/"


def test_from_a_bucket(
    bucket_server: str,
    index_lines: Callable[[str], Lines],
    client: Client,
    on: Mapping[Node, Machine],
    foreign: Mapping[str, str],
) -> None:
    assert_right_file_everywhere(index_lines(bucket_server), client, on, foreign)


class Hrefs(html.parser.HTMLParser):
    """The addresses on a page, as they are written."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def test_no_address_of_a_bucket_has_a_raw_plus(bucket_server: str, entries: Mapping[str, Entry]) -> None:
    """A raw + is a blank to S3; the server of this test takes it and would hide the defect."""
    with urllib.request.urlopen(f"{bucket_server}all/simple/fa3-fwd/index.html") as answer:  # noqa: S310 - our server
        hrefs = Hrefs(answer.read()).found
    assert len(hrefs) == len(entries)
    for entry in entries.values():
        (href,) = [href for href in hrefs if href.endswith(f"#sha256={entry.sha256}")]
        assert f"fa3_fwd-{entry.version.replace('+', '%2B')}-" in href
    assert not [href for href in hrefs if "+" in href]


@pytest.fixture(scope="module")
def server_lines(workspace: Workspace, entries: Mapping[str, Entry]) -> Callable[[Mapping[Node, str]], Lines]:
    """Upload to an index for each node, and make the lines for it from what its server then says."""

    def at(urls: Mapping[Node, str]) -> Lines:
        packages = publish_zoo.packages(workspace.wheelhouse)
        made = {}
        for node, url in urls.items():
            address = ServerAddress.parse(url)
            upload(packages, address, node.machines, workspace)
            with open_server(address, workspace) as server:
                link = server.files("fa3-fwd")[entries[node.right].file]
                made[node] = installation_from_server(entries[node.right], link.normalized, server.simple)
        return made.__getitem__

    return at


@pytest.fixture(scope="module")
def pypiserver_lines(
    server_lines: Callable[[Mapping[Node, str]], Lines], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lines]:
    """A pypiserver for each node, which lets nobody in without a password."""
    folder = tmp_path_factory.mktemp("pypiserver")
    with contextlib.ExitStack() as stack:
        urls = {node: stack.enter_context(running_pypiserver(folder / str(place))) for place, node in enumerate(NODES)}
        yield server_lines(urls)


def test_from_pypiserver(
    pypiserver_lines: Lines, client: Client, on: Mapping[Node, Machine], foreign: Mapping[str, str], tmp_path: Path
) -> None:
    assert_right_file_everywhere(pypiserver_lines, client, on, {**foreign, **login(tmp_path)})


@pytest.fixture(scope="module")
def devpi_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Node, str]]:
    """A devpi with an index for each node, where a file never changes."""
    with running_devpi(tmp_path_factory.mktemp("devpi")) as devpi:
        yield {node: devpi.make_index(f"for{place}") for place, node in enumerate(NODES)}


@pytest.fixture(scope="module")
def devpi_lines(server_lines: Callable[[Mapping[Node, str]], Lines], devpi_urls: Mapping[Node, str]) -> Lines:
    return server_lines(devpi_urls)


def test_from_devpi(devpi_lines: Lines, client: Client, on: Mapping[Node, Machine], foreign: Mapping[str, str]) -> None:
    assert_right_file_everywhere(devpi_lines, client, on, foreign)


def test_devpi_keeps_the_bytes_it_has(
    devpi_lines: Lines, devpi_urls: Mapping[Node, str], workspace: Workspace, tmp_path: Path
) -> None:
    node = NODES[0]
    address = ServerAddress.parse(devpi_urls[node])
    rebuilt = shelve(tmp_path, node.right, "2.11", extra="rebuilt = True\n")
    with pytest.raises(PublishError, match="other bytes under a name") as caught:
        upload([rebuilt], address, node.machines, workspace)
    published = devpi_lines(node).url.partition("#sha256=")[2]
    assert published in str(caught.value)
    assert rebuilt.record.wheel.sha256 in str(caught.value)
    with open_server(address, workspace) as server, pytest.raises(PublishError, match="status code 409"):
        server.send(rebuilt.path)


def test_the_foreign_index_would_be_taken_by_other_lines(
    client: Client, on: Mapping[Node, Machine], foreign: Mapping[str, str]
) -> None:
    """What the tests above guard against happens where the line is a plain one."""
    machine = on[NODES[0]]
    machine.run(f"{'uv ' * (client.kind == 'uv')}pip install --no-deps fa3-fwd", client, foreign)
    assert machine.installed() == "foreign-99.0"


def test_a_file_that_was_changed_is_refused(
    site: Path,
    index_lines: Callable[[str], Lines],
    client: Client,
    on: Mapping[Node, Machine],
    tmp_path: Path,
) -> None:
    changed = shutil.copytree(site, tmp_path / "changed")
    members = tiny_members(NODES[0].right, "torch>=2.9", extra="changed = True\n")
    (path,) = changed.glob(f"pool/fa3-fwd/fa3_fwd-{NODES[0].right}-*.whl")
    wheel_zoo.write(path.parent, members, name=path.name)
    with running_folder(changed) as url:
        for line in ways(index_lines(url)(NODES[0]), client):
            ended = on[NODES[0]].run(line, client, {})
            assert ended.returncode != 0, line
            assert "hash" in (ended.stdout + ended.stderr).lower()
            assert on[NODES[0]].installed() is None


def test_the_line_of_one_cell_takes_nothing_from_the_page_of_another(
    folder_server: str, index_lines: Callable[[str], Lines], client: Client, on: Mapping[Node, Machine]
) -> None:
    lines = {node: index_lines(folder_server)(node) for node in NODES}
    for node, other in ((NODES[1], NODES[0]), (NODES[0], NODES[2])):
        line = ways(lines[node], client)[1].replace(lines[node].page, lines[other].page)
        assert on[node].run(line, client, {}).returncode != 0, line
        assert on[node].installed() is None


def test_every_page_leads_its_machines_to_the_right_file_without_a_version(
    folder_server: str, index_lines: Callable[[str], Lines], client: Client, on: Mapping[Node, Machine]
) -> None:
    """The page of everything does not: it is for people and mirrors."""
    program = f"{'uv ' * (client.kind == 'uv')}pip install --no-deps --index-url"
    wrong = on[NODES[0]].run(f"{program} {folder_server}all/simple/ fa3-fwd", client, {})
    assert (wrong.returncode, on[NODES[0]].installed()) == (0, NODES[1].right)
    on[NODES[0]].forget()
    for node in NODES:
        ended = on[node].run(f"{program} {index_lines(folder_server)(node).index} fa3-fwd", client, {})
        assert (ended.returncode, on[node].installed()) == (0, node.right), ended.stderr


def test_pages_in_json_lead_to_the_right_file(
    site: Path, index_lines: Callable[[str], Lines], client: Client, on: Mapping[Node, Machine]
) -> None:
    """Pip from 22.2 on and uv read them; an older pip says that there is nothing."""
    program = f"{'uv ' * (client.kind == 'uv')}pip install --no-deps --index-url"
    reads = client.name not in [f"pip-{version}" for version in HTML_ONLY]
    with running_json_folder(site) as url:
        for node in NODES[:2]:
            ended = on[node].run(f"{program} {index_lines(url)(node).index} fa3-fwd=={node.right}", client, {})
            assert on[node].installed() == (node.right if reads else None), ended.stderr
