"""Containers for real: an image from Debian's packages, a build in it with everything killed once, docker and podman.

The tests of this module run in order and share one cache, one wheelhouse and one daemon of their own.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.integration.command import Running, hopperforge, processes
from tests.integration.daemon import Daemon

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

WORDS = ("recipe=fa3-fwd", "profile=hdim128-bf16", "cuda=13.0", "toolkit=registry", "torch=2.11")
PODMAN = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # not in pytest's folder: the path of a socket has to be short
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as folder:
        daemon = Daemon(Path(folder))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(PODMAN)
    environment = {"CONTAINERS_CONF": str(settings)}
    yield environment
    listed = ["podman", "images", "--quiet", "--filter", "reference=*hopperforge*"]
    images = subprocess.run(listed, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    names = sorted(set(images.stdout.split()))
    subprocess.run(["podman", "rmi", "--force", *names], env={**os.environ, **environment}, check=True)


def report(home: Path) -> dict[str, object]:
    (build,) = json.loads((home / "wheelhouse" / "report.json").read_text())["builds"]
    return dict(build)


def path_without(program: str, home: Path) -> str:
    """A PATH that has everything but `program`."""
    folder = home / f"without-{program}"
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for found in Path(place).glob("*"):
            link = folder / found.name
            if found.name != program:
                link.unlink(missing_ok=True)
                link.symlink_to(found)
    return str(folder)


def half_made(home: Path) -> list[str]:
    return [str(path) for path in (home / "cache" / "work").rglob("*") if path.suffix != ".lock"]


def test_the_doctor_says_the_command_and_starts_nothing(home: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{home}/nowhere"}
    ended = hopperforge("doctor", "engine", home=home, env=nowhere)
    assert ended.status == 0, ended.err
    assert "docker: no docker daemon answers" in ended.out
    assert "dockerd --iptables=false" in ended.out
    refused = hopperforge("plan", *WORDS, "engine=docker", home=home, env=nowhere)
    assert refused.status == 5
    assert "no docker daemon answers" in refused.err


def test_an_engine_that_works_is_taken_without_being_asked_for(home: Path, daemon: Daemon) -> None:
    taken = hopperforge("plan", *WORDS, home=home, env={"DOCKER_HOST": daemon.host})
    assert taken.status == 0, taken.err
    assert "engine=docker" in taken.out
    # without what makes a base, the engine is no use
    without = {"DOCKER_HOST": daemon.host, "PATH": path_without("mmdebstrap", home)}
    left = hopperforge("plan", *WORDS, home=home, env=without)
    assert left.status == 0, left.err
    assert "engine=host" in left.out
    assert "docker works, but base bullseye is made by mmdebstrap, which is missing" in left.out


def test_an_engine_that_only_answers_is_passed_over(home: Path, podman: Mapping[str, str]) -> None:
    nowhere = {**podman, "DOCKER_HOST": f"unix://{home}/nowhere"}
    taken = hopperforge("plan", *WORDS, home=home, env=nowhere)
    assert "engine=podman" in taken.out, taken.err
    broken = home / "broken.conf"
    broken.write_text(PODMAN.replace('"runc"', '"/bin/false"'))
    left = hopperforge("plan", *WORDS, home=home, env={**nowhere, "CONTAINERS_CONF": str(broken)})
    assert left.status == 0, left.err
    assert "engine=host" in left.out
    assert "runs no container" in left.out


def test_an_image_is_made_once(home: Path, daemon: Daemon) -> None:
    words = ("image", "cuda=13.0", "toolkit=registry", "engine=docker")
    first = hopperforge(*words, home=home, env={"DOCKER_HOST": daemon.host})
    assert first.status == 0, first.err
    assert "building hopperforge-build" in first.err
    started = time.monotonic()
    second = hopperforge(*words, home=home, env={"DOCKER_HOST": daemon.host, "PIP_INDEX_URL": "http://127.0.0.1:9/"})
    assert (second.status, second.out) == (0, first.out)
    assert "building" not in second.err
    assert time.monotonic() - started < 20


def test_equal_inputs_made_elsewhere_are_the_same_image(home: Path, daemon: Daemon) -> None:
    words = ("image", "cuda=13.0", "toolkit=registry", "engine=docker")
    # apt treats folders that everyone may enter differently, and pytest's are not of that kind
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        Path(folder).chmod(0o755)
        ended = hopperforge(*words, home=Path(folder), env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert "making base" in ended.err
    assert "building" not in ended.err
    assert ended.out == hopperforge(*words, home=home, env={"DOCKER_HOST": daemon.host}).out


def test_a_base_moved_under_its_tag_is_not_taken(home: Path, daemon: Daemon) -> None:
    (tag,) = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "hopperforge-base").stdout.split()
    (built,) = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "hopperforge-build").stdout.split()
    daemon.docker("tag", built, tag)
    ended = hopperforge(
        "image", "cuda=13.0", "toolkit=registry", "engine=docker", home=home, env={"DOCKER_HOST": daemon.host}
    )
    assert ended.status == 0, ended.err
    assert "importing bullseye" in ended.err


def test_ctrl_c_leaves_no_container_and_no_half_file(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    run.wait_for("0/2 units")
    daemon.wait_for_containers(2)
    assert run.send(signal.SIGINT) == 130
    assert daemon.containers() == []
    assert half_made(home) == []


def test_a_killed_container_is_tried_again_and_then_reported(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "jobs=1", "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    run.wait_for("0/2 units")
    daemon.docker("kill", *daemon.wait_for_containers(1))
    assert run.finish() == 6
    assert any("was killed while compiling" in line for line in run.lines)
    assert daemon.containers() == []
    assert half_made(home) == []


def test_after_everything_was_killed_a_rerun_finishes(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    run.wait_for("0/2 units")
    daemon.wait_for_containers(2)
    assert run.send(signal.SIGKILL) == -signal.SIGKILL
    daemon.end(signal.SIGKILL)
    daemon.start()
    ended = hopperforge("build", *WORDS, home=home, env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert daemon.containers() == []
    assert half_made(home) == []
    assert processes(["docker"], home) == []


def test_the_tag_is_proven_at_the_bases_floor_or_lower(home: Path) -> None:
    record = json.loads(Path(f"{report(home)['wheel']}.json").read_text())
    assert (record["engine"], record["image"]["base"]) == ("docker", "bullseye")
    assert record["host_compiler"]["version"].startswith("10.2")
    (tag,) = record["wheel"]["platform_tags"]
    assert tag in {"manylinux_2_17_x86_64", "manylinux_2_24_x86_64", "manylinux_2_28_x86_64"}
    (gate,) = [gate for gate in record["gates"] if gate["name"] == "platform-tag"]
    assert gate["passed"]


def test_peaks_are_measured_inside_the_container(home: Path) -> None:
    record = json.loads(Path(f"{report(home)['wheel']}.json").read_text())
    assert max(unit["peak_rss"] for unit in record["pack"]["units"]) > 3_000_000_000


def test_podman_gives_the_same_bytes(home: Path, podman: Mapping[str, str]) -> None:
    before = report(home)
    for path in (home / "wheelhouse").glob("*.whl*"):
        path.unlink()
    ended = hopperforge("build", *WORDS, "engine=podman", home=home, env=podman)
    assert ended.status == 0, ended.err
    after = report(home)
    assert (after["units_compiled"], after["sha256"]) == (0, before["sha256"])


def test_the_wheel_imports_beside_a_real_torch(home: Path) -> None:
    wheel = str(report(home)["wheel"])
    ended = hopperforge("verify", f"wheel={wheel}", "torch=2.11", home=home)
    assert ended.status == 0, ended.err


def test_the_cache_holds_nothing_that_clean_does_not_know(home: Path) -> None:
    ended = hopperforge("clean", "what=cache", home=home)
    assert ended.status == 0, ended.err
    assert not (home / "cache").exists()
