"""Which engines this machine has, which one is taken, and what is missing of the others.

Looking starts no daemon: one that does not run is reported with the command that starts it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.cell import Default
from hopperforge.run.engine import CONTAINER_PROGRAMS, HOST, Client
from hopperforge.run.engine_trial import try_container

START_DOCKERD: Final = (
    "dockerd --iptables=false --ip6tables=false --bridge=none --ip-forward=false "
    "--data-root /var/tmp/dockerd/data --exec-root /var/tmp/dockerd/exec "
    "-H unix:///var/tmp/dockerd/sock --pidfile /var/tmp/dockerd/pid"
)
"""Works as root without any other set-up: no bridge, for builds have no network."""

PODMAN_SETTINGS: Final = (
    "[containers]",
    'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]',
    "[engine]",
    'runtime = "runc"',
    'cgroup_manager = "cgroupfs"',
    'events_logger = "file"',
)
"""A containers.conf for machines where podman cannot talk to systemd."""

_QUESTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("version", "--format", "{{.Client.Version}}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What was found of one container engine.

    `version` is what answered (docker's daemon; podman has none); `works` whether it ran a container as builds run
    them; `detail` what it said otherwise; `daemon` whether the program of the daemon is installed.
    """

    name: str
    installed: bool
    version: str | None
    works: bool
    detail: tuple[str, ...]
    daemon: bool = False


def look(environ: Mapping[str, str], scratch: Path) -> tuple[EngineState, ...]:
    """Ask docker and podman, in this order of preference, and let each that answers run a container.

    `scratch` is a folder for the trial's image.
    """
    return tuple(_look(program, environ, scratch) for program in CONTAINER_PROGRAMS)


def _look(program: str, environ: Mapping[str, str], scratch: Path) -> EngineState:
    path = environ.get("PATH", os.defpath)
    daemon = shutil.which("dockerd", path=f"{path}:/usr/sbin:/sbin") is not None
    if shutil.which(program, path=path) is None:
        return EngineState(name=program, installed=False, version=None, works=False, detail=(), daemon=daemon)
    client = Client(program=program, environ=environ)
    done = client.ask(*_QUESTIONS[program])
    version = done.tail[-1] if done.status == 0 and done.tail else None
    if version is not None:
        done = try_container(client, scratch)
    works = version is not None and done.status == 0
    return EngineState(
        name=program, installed=True, version=version, works=works, detail=() if works else done.tail, daemon=daemon
    )


def choose_engine(word: str | None, states: Sequence[EngineState], *, glibc: str, lack: str | None) -> Default:
    """Choose an engine, with the reason.

    `glibc` is this machine's, for the warning; `lack` says what else keeps an image from being made here, None if
    nothing does.

    | engine=        | taken                                                                                      |
    |----------------|--------------------------------------------------------------------------------------------|
    | host           | host                                                                                       |
    | docker, podman | that one; ToolError if it does not run containers                                          |
    | not given      | the first of docker and podman that runs containers, if images can be made; else host, with |
    |                | what tag to expect and what kept each engine from being taken                              |
    """
    if word == HOST:
        return Default(value=HOST, reason="the word engine=")
    working = [state for state in states if state.works]
    if word is not None:
        if not any(state.name == word for state in working):
            (asked,) = (state for state in states if state.name == word)
            raise ToolError(
                f"engine={word}, but {_complaint(asked)}", detail=asked.detail, hint="nox -s doctor -- engine"
            )
        return Default(value=word, reason="the word engine=")
    if working and lack is None:
        first = working[0]
        reason = f"{first.name} {first.version} runs containers here, and packages linked on the host need its glibc"
        return Default(value=first.name, reason=f"{reason} {glibc}")
    found = [_complaint(state) for state in states if not state.works]
    found += [f"{state.name} works, but {lack}" for state in working]
    return Default(
        value=HOST,
        reason=f"packages may need this machine's glibc {glibc}, so expect a tag up to "
        f"manylinux_{glibc.replace('.', '_')}; {', '.join(found)}: see `nox -s doctor -- engine`",
    )


def _complaint(state: EngineState) -> str:
    if not state.installed:
        return f"{state.name} is not installed"
    if state.version is not None:
        return f"{state.name} {state.version} runs no container"
    return f"no {state.name} daemon answers" if state.name == "docker" else f"{state.name} does not work"


def diagnose(states: Sequence[EngineState], *, root: bool, lack: str | None) -> tuple[str, ...]:
    """Say of each engine what it is, or what is missing and the command that helps; `lack` as in `choose_engine`."""
    lines: list[str] = []
    for state in states:
        if state.works:
            lines.append(f"{state.name}: {state.version} runs containers")
            continue
        lines.append(f"{state.name}: {_complaint(state).removeprefix(f'{state.name} ')}")
        lines += [f"  it says: {line}" for line in state.detail[-2:] if line]
        lines += [f"  {remedy}" for remedy in _remedies(state, root=root)]
    lines += [f"images: {lack}"] if lack else []
    lines.append("host: always there; packages then need a glibc as new as this machine's")
    return tuple(lines)


def _remedies(state: EngineState, *, root: bool) -> tuple[str, ...]:
    if state.name == "podman":
        if not state.installed:
            return ("apt-get install -y --no-install-recommends podman runc",)
        return ("write these lines into ~/.config/containers/containers.conf:", *PODMAN_SETTINGS)
    if not (state.installed and state.daemon):
        return ("apt-get install -y --no-install-recommends docker.io",)
    if state.version is not None:
        return ("docker run --rm IMAGE true   # with an image of yours: what does the daemon's log say?",)
    if root:
        return (
            f"{START_DOCKERD} &",
            "export DOCKER_HOST=unix:///var/tmp/dockerd/sock",
            "kill $(cat /var/tmp/dockerd/pid)   # when done",
        )
    return ("sudo systemctl start docker   # and be a member of the group docker",)
