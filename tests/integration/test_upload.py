"""Publishing to upload servers: what is sent, skipped and refused, by pypiserver and by servers that misbehave."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.command import hopperforge
from tests.integration.package_servers import (
    PASSWORD,
    USER,
    WaywardServer,
    running_pypiserver,
    running_wayward,
)
from tests.integration.shelves import shelve

from hopperforge.errors import HopperforgeError, InputError, PublishError
from hopperforge.index.flat import Machines
from hopperforge.model.versions import CudaVersion, TorchVersion
from hopperforge.report import Recorder
from hopperforge.run.upload_server import ServerAddress
from hopperforge.run.workspace import Workspace
from hopperforge.stages.upload import Uploaded, upload
from hopperforge.store.wheelhouse import Shelved

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LOGIN = {"UV_PUBLISH_USERNAME": USER, "UV_PUBLISH_PASSWORD": PASSWORD}
CU128 = Machines(cuda=CudaVersion.parse("12.8"))


@pytest.fixture(scope="module")
def pypiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_pypiserver(tmp_path_factory.mktemp("pypiserver") / "files") as url:
        yield url


@pytest.fixture
def wayward() -> Iterator[WaywardServer]:
    with running_wayward() as server:
        yield server


class Publisher:
    """Publishes from a wheelhouse and keeps what was said; no login but the one given."""

    def __init__(self, folder: Path, login: Mapping[str, str]) -> None:
        environ = {name: text for name, text in os.environ.items() if not name.startswith("UV_")}
        environ |= {"HOME": str(folder), "UV_HTTP_RETRIES": "0", **login}
        self.folder = folder
        self.reporter = Recorder()
        self._workspace = Workspace(
            project=folder, cache=folder / "cache", wheelhouse=folder, environ=environ, reporter=self.reporter
        )

    def publish(
        self,
        *packages: Shelved,
        to: str,
        machines: Machines | None = None,
        check: str | None = None,
        dry_run: bool = False,
    ) -> Uploaded:
        """Publish, and keep the refusal."""
        try:
            return upload(packages, ServerAddress.parse(to, check), machines, self._workspace, dry_run=dry_run)
        except HopperforgeError as error:
            self.reporter.warn(str(error))
            raise

    def everything(self) -> str:
        """All that was said, and all files but the servers' own and netrc."""
        told = self.reporter
        said = [*told.notes, *told.warnings, *(line for _, line in told.lines), *(str(stage) for stage in told.stages)]
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "netrc")
        return "\n".join(said + [path.read_bytes().decode(errors="replace") for path in files])


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path, LOGIN)


def refusal(caught: pytest.ExceptionInfo[PublishError]) -> str:
    assert caught.value.exit_code == 9
    return str(caught.value)


def test_a_package_is_sent_once_and_never_changed(pypiserver: str, publisher: Publisher, tmp_path: Path) -> None:
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    assert publisher.publish(package, to=pypiserver, dry_run=True).sent == (package,)
    assert publisher.publish(package, to=pypiserver).sent == (package,)
    assert publisher.publish(package, to=pypiserver) == Uploaded(sent=(), skipped=(package,))
    assert f"skipped {package.path.name}: {pypiserver}simple/ has it with the same bytes" in publisher.reporter.notes
    other = shelve(tmp_path / "rebuilt", "3.0.0+cu124", "2.11", extra="changed = True\n")
    with pytest.raises(PublishError, match="other bytes under a name") as caught:
        publisher.publish(other, to=pypiserver)
    for sha256 in (package.record.wheel.sha256, other.record.wheel.sha256):
        assert f"sha256 {sha256}" in refusal(caught)
    assert PASSWORD not in publisher.everything()


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ({}, "no login was found for it in UV_PUBLISH_TOKEN"),
        ({**LOGIN, "UV_PUBLISH_PASSWORD": "wrong-word"}, f"tried as the user {USER}"),
        ({"UV_PUBLISH_TOKEN": "wrong-token"}, "tried as the user __token__"),
    ],
)
def test_a_wrong_login_is_refused_clearly(pypiserver: str, tmp_path: Path, login: Mapping[str, str], said: str) -> None:
    publisher = Publisher(tmp_path, login)
    with pytest.raises(PublishError, match=r"cannot be read: the server answers 40[13]") as caught:
        publisher.publish(shelve(tmp_path, "3.1.0+cu124", "2.11"), to=pypiserver)
    assert said in refusal(caught)
    assert "hint: export UV_PUBLISH_USERNAME=" in refusal(caught)
    assert "wrong-" not in publisher.everything()


def test_a_login_is_found_in_netrc(pypiserver: str, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    publisher = Publisher(tmp_path, {"NETRC": str(netrc)})
    package = shelve(tmp_path / "house", "3.2.0+cu124", "2.11")
    assert publisher.publish(package, to=pypiserver).sent == (package,)
    assert PASSWORD not in publisher.everything()


def test_a_login_is_asked_of_keyring(pypiserver: str, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "keyring"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "get 127.0.0.1:{pypiserver[17:-1]} {USER}" ] && cat {tmp_path}/netrc\n'
    )
    program.chmod(0o755)
    (tmp_path / "netrc").write_text(PASSWORD)
    path = f"{program.parent}:{os.environ['PATH']}"
    publisher = Publisher(tmp_path, {"UV_PUBLISH_USERNAME": USER, "PATH": path})
    package = shelve(tmp_path / "house", "3.3.0+cu124", "2.11")
    assert publisher.publish(package, to=pypiserver).sent == (package,)
    assert PASSWORD not in publisher.everything()


def test_the_password_is_in_no_command_line(wayward: WaywardServer, publisher: Publisher, tmp_path: Path) -> None:
    spy = tmp_path / "spy"
    wayward.on_upload = lambda: spy.write_bytes(command_lines())
    publisher.publish(shelve(tmp_path / "house", "3.0.0+cu124", "2.11"), to=wayward.url)
    assert b"uv\0publish\0" in spy.read_bytes()
    assert PASSWORD.encode() not in spy.read_bytes()


def command_lines() -> bytes:
    """The words of every process that runs now."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:  # it ended while we looked
            continue
    return found


def test_a_server_that_repeats_the_password_is_not_repeated(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path
) -> None:
    wayward.manners = "echo"
    with pytest.raises(PublishError, match="was not taken by"):
        publisher.publish(shelve(tmp_path / "house", "3.0.0+cu124", "2.11"), to=wayward.url)
    said = publisher.everything()
    assert re.search(rf"{USER}:\*\*\*", said)
    assert "Basic ***" in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("manners", "said"),
    [
        ("broken", "status code 500"),
        ("cut", "cause:"),
        ("forget", "does not list it"),
        ("half", "holds other bytes than"),
    ],
)
def test_what_a_server_does_wrong_is_said(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path, manners: str, said: str
) -> None:
    wayward.manners = manners
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    with pytest.raises(PublishError) as caught:
        publisher.publish(package, to=wayward.url)
    assert package.path.name in refusal(caught)
    assert said in refusal(caught)


def test_files_are_hashed_where_pages_have_no_hashes(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path
) -> None:
    wayward.manners = "bare"
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    assert publisher.publish(package, to=wayward.url).sent == (package,)
    assert publisher.publish(package, to=wayward.url).skipped == (package,)


def test_another_host_is_not_asked(wayward: WaywardServer, publisher: Publisher, tmp_path: Path) -> None:
    wayward.manners = "elsewhere"
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    assert publisher.publish(package, to=wayward.url, dry_run=True).sent == (package,)


def test_a_server_that_is_down_or_has_no_index_is_said(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path
) -> None:
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    with pytest.raises(PublishError, match=r"127\.0\.0\.1:1/\S* cannot be read: .*[Rr]efused"):
        publisher.publish(package, to="http://127.0.0.1:1/")
    with pytest.raises(PublishError, match=r"no simple index at http://127\.0\.0\.1:\d+/elsewhere/simple/"):
        publisher.publish(package, to=f"{wayward.url}elsewhere")
    assert publisher.publish(package, to=f"{wayward.url}up", check=f"{wayward.url}simple", dry_run=True).sent


def test_an_address_with_a_password_is_refused_and_not_repeated(publisher: Publisher, tmp_path: Path) -> None:
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    with pytest.raises(InputError, match="without user and password"):
        publisher.publish(package, to=f"http://{USER}:{PASSWORD}@127.0.0.1:1/")
    assert PASSWORD not in publisher.everything()


def test_an_unproven_package_is_refused(wayward: WaywardServer, publisher: Publisher, tmp_path: Path) -> None:
    proven, unproven = shelve(tmp_path, "3.0.0+cu124", "2.11"), shelve(tmp_path, "3.1.0+cu124", "2.11", gpu=None)
    with pytest.raises(PublishError, match="lacks a proof") as caught:
        publisher.publish(proven, unproven, to=wayward.url)
    assert f"{unproven.path.name}: no smoke tests on a GPU" in refusal(caught)
    assert proven.path.name not in refusal(caught)
    assert (wayward.asked, wayward.held) == ([], {})


def test_packages_for_different_machines_want_an_index_each(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path
) -> None:
    house = tmp_path / "house"
    older, newer = shelve(house, "3.0.0+cu124", "2.9", "2.11"), shelve(house, "3.0.0+cu130", "2.11")
    bound = shelve(house, "3.0.0+cu124torch2.6", "2.6")
    with pytest.raises(PublishError, match="for different machines") as caught:
        publisher.publish(older, newer, bound, to=wayward.url)
    assert "hint: cuda=12.8" in refusal(caught)
    assert publisher.publish(older, newer, bound, to=wayward.url, machines=CU128).sent == (older,)
    assert f"left out {bound.path.name}: it is not for cuda=12.8" in publisher.reporter.notes
    with pytest.raises(PublishError, match="already has packages for other machines") as caught:
        publisher.publish(newer, to=wayward.url)
    assert older.path.name in refusal(caught)
    torch26 = replace(CU128, torch=TorchVersion.parse("2.6"))
    assert publisher.publish(older, newer, bound, to=wayward.url, machines=torch26, dry_run=True).sent == (bound,)
    with pytest.raises(PublishError, match=r"nothing to publish for cuda=12\.8 profile=full"):
        publisher.publish(older, newer, to=wayward.url, machines=replace(CU128, profile="full"))


def test_a_file_of_the_same_name_that_is_not_ours_is_seen(
    wayward: WaywardServer, publisher: Publisher, tmp_path: Path
) -> None:
    wayward.held["fa3_fwd-99.0-py3-none-any.whl"] = b"a wheel of somebody else"
    package = shelve(tmp_path / "house", "3.0.0+cu124", "2.11")
    with pytest.raises(PublishError, match="already has packages for other machines") as caught:
        publisher.publish(package, to=wayward.url)
    assert "fa3_fwd-99.0-py3-none-any.whl" in refusal(caught)


def test_the_verb_uploads_what_is_proven(wayward: WaywardServer, tmp_path: Path) -> None:
    house = tmp_path / "wheelhouse"
    older, newer = shelve(house, "3.0.0+cu124", "2.11"), shelve(house, "3.0.0+cu130", "2.11")
    unproven = shelve(house, "3.1.0+cu124", "2.11", gpu=None)
    words = ("publish", f"to={wayward.url}", "cuda=12.8")
    ended = hopperforge(*words, home=tmp_path, env=LOGIN)
    assert ended.status == 0, ended.err
    assert f"{older.path.name}: published: 0.00 MB, sha256 {older.record.wheel.sha256}" in ended.out
    assert f"left out: {unproven.path.name}: no smoke tests on a GPU" in ended.out
    assert list(wayward.held) == [older.path.name]
    refused = hopperforge("publish", f"to={wayward.url}", f"wheel={newer.path.name}", home=tmp_path, env=LOGIN)
    assert refused.status == 9
    assert "already has packages for other machines" in refused.err
    assert PASSWORD not in ended.out + ended.err + refused.err
