"""Engines with a small program in docker's place: what it is told, and that no container is ever left."""

import io
import os
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import ToolError
from hopperforge.model.cell import Default
from hopperforge.model.image import Base, Image
from hopperforge.report import Recorder
from hopperforge.run.engine import (
    Client,
    Command,
    ContainerEngine,
    HostEngine,
    Mount,
    container_name,
    memory_limit,
    mount_text,
    split_usage,
)
from hopperforge.run.engine_trial import trial_image
from hopperforge.run.engines import START_DOCKERD, EngineState, choose_engine, diagnose
from hopperforge.run.process import Cancelled, run
from hopperforge.stages.image import image_archivers

# Runs nothing: a container is a file named like it; what `run` does is said by the file `behave`.
DOCKER = """#!/bin/sh
cd {folder}
echo "$@" >> calls
case "$1" in
  rm) for name in "$@"; do rm -f "containers/$name"; done;;
  run)
    for word in "$@"; do case "$word" in --name=*) touch "containers/${{word#--name=}}";; esac; done
    . ./behave;;
esac
"""
USAGE = """echo 'hopperforge-usage: {"peak_rss": 4096}'"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "containers").mkdir()
    (tmp_path / "out").mkdir()
    program = tmp_path / "docker"
    program.write_text(DOCKER.format(folder=tmp_path))
    program.chmod(0o755)
    return tmp_path


def engine(folder: Path, *, keep: bool = False) -> ContainerEngine:
    client = Client(program=str(folder / "docker"), environ={"PATH": os.defpath})
    return ContainerEngine(
        client=client, image="sha256:1", ground="base", reporter=Recorder(), keep=keep, user="1000:100"
    )


def command(folder: Path) -> Command:
    return Command(
        name="unit",
        argv=("nvcc", "-c"),
        cwd=Path("/out"),
        env={"LC_ALL": "C", "PATH": "/evil"},
        mounts=(
            Mount(outside=folder, inside="/src"),
            Mount(outside=folder / "out", inside="/out", writable=True),
        ),
        memory=1024,
    )


def behave(folder: Path, *lines: str) -> None:
    (folder / "behave").write_text("\n".join(lines) + "\n")


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "containers").iterdir()]


def test_a_command_gets_what_it_was_given_and_nothing_else(folder: Path) -> None:
    behave(folder, "echo compiled", USAGE)
    done = engine(folder).run(command(folder))
    assert (done.status, done.tail, done.peak_rss) == (0, ("compiled",), 4096)
    name = container_name(command(folder))
    (line,) = [line for line in (folder / "calls").read_text().splitlines() if line.startswith("run")]
    assert line.split() == [
        *("run", "--rm", "--pull=never", f"--name={name}", "--network=none", "--read-only", "--cap-drop=ALL"),
        *("--security-opt=no-new-privileges", "--user=1000:100", "--memory=1024", "--memory-swap=1024"),
        f"--mount=type=bind,source={folder},target=/src,readonly",
        f"--mount=type=bind,source={folder}/out,target=/out",
        *("--workdir=/out", "--env=LC_ALL=C", "sha256:1"),
        *("/opt/python/cp39-cp39/bin/python", "-I", "/opt/hopperforge/measure.py", "nvcc", "-c"),
    ]
    assert left(folder) == []


def test_an_image_is_asked_once_what_makes_static_libraries_in_it(folder: Path) -> None:
    behave(folder, "echo 'GNU it (GNU Binutils for Debian) 2.35.2'", USAGE)
    base = Base(name="b", id="b", tag="t", floor="manylinux_2_28_x86_64")
    image = Image(id="7" * 64, base=base, reference="sha256:1", tools={})
    for _ in range(2):
        assert image_archivers(image, engine(folder), zoo.workspace(folder)) == {"ar": "2.35.2", "objcopy": "2.35.2"}
    asked = [line for line in (folder / "calls").read_text().splitlines() if line.endswith(" --version")]
    assert len(asked) == 2


def test_an_image_that_is_no_builder_measures_with_its_own_python(folder: Path) -> None:
    behave(folder, USAGE)
    replace(engine(folder), python="python3").run(command(folder))
    (line,) = [line for line in (folder / "calls").read_text().splitlines() if line.startswith("run")]
    assert line.endswith(" sha256:1 python3 -I /opt/hopperforge/measure.py nvcc -c")


@pytest.mark.parametrize("status", [1, 2, 137])
def test_a_failed_command_is_no_failure_of_the_engine_and_leaves_no_container(status: int, folder: Path) -> None:
    behave(folder, "echo wrong", USAGE, f"exit {status}")
    assert engine(folder).run(command(folder)).status == status
    assert left(folder) == []


@pytest.mark.parametrize("status", [125, 126, 127])
def test_an_engine_that_fails_says_so_and_leaves_no_container(status: int, folder: Path) -> None:
    behave(folder, "echo the daemon is gone", f"exit {status}")
    with pytest.raises(ToolError, match="stopped answering") as caught:
        engine(folder).run(command(folder))
    assert "the daemon is gone" in caught.value.detail
    assert left(folder) == []


def test_a_command_that_ends_with_an_engines_status_is_its_own_failure(folder: Path) -> None:
    behave(folder, USAGE, "exit 127")
    assert engine(folder).run(command(folder)).status == 127


def test_a_stopped_command_leaves_no_container(folder: Path) -> None:
    behave(folder, "sleep 30 & wait")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        engine(folder).run(command(folder), stop=stop)
    assert time.monotonic() - started < 5
    assert left(folder) == []


def test_a_killed_client_leaves_no_container(folder: Path) -> None:
    behave(folder, "kill -9 $$")
    assert engine(folder).run(command(folder)).killed
    assert left(folder) == []


def test_what_a_killed_run_left_under_the_name_goes_first(folder: Path) -> None:
    (folder / "containers" / container_name(command(folder))).touch()
    behave(folder, "ls containers | wc -l", USAGE)
    engine(folder).run(command(folder))
    calls = (folder / "calls").read_text().splitlines()
    assert [line.split()[0] for line in calls] == ["rm", "run", "rm"]


def test_keep_says_how_to_get_in(folder: Path) -> None:
    behave(folder, "exit 2")
    kept = engine(folder, keep=True)
    kept.run(command(folder))
    assert isinstance(kept.reporter, Recorder)
    (note,) = kept.reporter.notes
    assert note.startswith(f"to get in: {folder}/docker run --interactive --tty --rm ")
    assert note.endswith(" sha256:1 /bin/sh")


def test_names_tell_commands_and_places_apart(folder: Path) -> None:
    one = command(folder)
    other_place = replace(one, mounts=(Mount(outside=folder / "else", inside="/out", writable=True),))
    names = {container_name(each) for each in (one, replace(one, name="other"), other_place)}
    assert len(names) == 3
    assert container_name(one) == container_name(replace(one, argv=("g++",), memory=None))


def test_no_limit_is_no_words() -> None:
    assert memory_limit(None) == ()


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb"])
def test_a_path_that_a_mount_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ToolError, match="cannot be shown to a container"):
        mount_text(Mount(outside=Path("/") / name, inside="/src"))


def test_usage_is_found_before_trailing_lines() -> None:
    assert split_usage(["a", 'hopperforge-usage: {"peak_rss": 7}', "b"]) == (7, ("a", "b"))
    assert split_usage(["a"]) == (None, ("a",))


def test_the_host_runs_commands_as_they_are(tmp_path: Path) -> None:
    host = HostEngine()
    mount = Mount(outside=tmp_path, inside="/out", writable=True)
    assert host.place(mount) == tmp_path
    done = host.run(
        Command(name="n", argv=("/bin/pwd",), cwd=tmp_path, env={}, mounts=(mount,), memory=1),
    )
    assert done.tail == (str(tmp_path),)


def state(name: str, version: str | None = None, *, works: bool | None = None, **more: bool) -> EngineState:
    found = {"installed": True, "daemon": True, **more}
    answered = version is not None if works is None else works
    return EngineState(name=name, version=version, works=answered, detail=("Cannot connect",), **found)


def chosen(word: str | None, *states: EngineState, lack: str | None = None) -> Default:
    return choose_engine(word, states, glibc="2.36", lack=lack)


@pytest.mark.parametrize(
    ("word", "docker", "podman", "taken"),
    [
        ("host", "20.10", "4.3", "host"),
        ("docker", "20.10", "4.3", "docker"),
        ("podman", "20.10", "4.3", "podman"),
        (None, "20.10", "4.3", "docker"),
        (None, None, "4.3", "podman"),
        (None, None, None, "host"),
    ],
)
def test_the_engine_taken(word: str | None, docker: str | None, podman: str | None, taken: str) -> None:
    assert chosen(word, state("docker", docker), state("podman", podman)).value == taken


def test_an_engine_that_runs_no_container_is_passed_over() -> None:
    broken = state("docker", "20.10", works=False)
    assert chosen(None, broken, state("podman", "4.3")).value == "podman"
    left = chosen(None, broken, state("podman", installed=False))
    assert left.value == "host"
    assert "docker 20.10 runs no container, podman is not installed" in left.reason
    with pytest.raises(ToolError, match=r"engine=docker, but docker 20\.10 runs no container"):
        chosen("docker", broken, state("podman", "4.3"))


def test_where_no_image_can_be_made_the_host_is_taken() -> None:
    left = chosen(None, state("docker", "20.10"), state("podman"), lack="mmdebstrap is missing")
    assert left.value == "host"
    assert "docker works, but mmdebstrap is missing" in left.reason
    assert chosen("docker", state("docker", "20.10"), lack="mmdebstrap is missing").value == "docker"


def test_an_engine_asked_for_must_answer() -> None:
    with pytest.raises(ToolError, match="engine=docker, but no docker daemon answers"):
        chosen("docker", state("docker"), state("podman", "4.3"))
    with pytest.raises(ToolError, match="podman is not installed"):
        chosen("podman", state("docker", "1"), state("podman", installed=False))


def test_the_host_says_what_tag_to_expect_and_why_it_was_taken() -> None:
    reason = chosen(None, state("docker"), state("podman")).reason
    assert "manylinux_2_36" in reason
    assert "no docker daemon answers, podman does not work" in reason


def test_the_doctor_names_the_command_for_each_state() -> None:
    installed = "\n".join(diagnose([state("docker"), state("podman")], root=True, lack=None))
    assert START_DOCKERD in installed
    assert "containers.conf" in installed
    assert START_DOCKERD not in "\n".join(diagnose([state("docker")], root=False, lack=None))
    bare = diagnose([state("docker", installed=False), state("podman", installed=False)], root=True, lack=None)
    assert sum("apt-get install" in line for line in bare) == 2
    client_only = "\n".join(diagnose([state("docker", daemon=False)], root=True, lack=None))
    assert "apt-get install -y --no-install-recommends docker.io" in client_only
    assert diagnose([state("docker", "20.10")], root=True, lack=None)[0] == "docker: 20.10 runs containers"


def test_the_doctor_names_what_images_lack() -> None:
    assert "images: mmdebstrap is missing" in diagnose([state("docker", "1")], root=True, lack="mmdebstrap is missing")


def test_the_trial_program_succeeds_and_does_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "succeed"
    with tarfile.open(fileobj=io.BytesIO(trial_image())) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        program.write_bytes(content.read())
    assert (member.name, member.mode) == (program.name, 0o755)
    program.chmod(member.mode)
    done = run([program], cwd=tmp_path, env={})
    assert (done.status, done.tail) == (0, ())
