"""Which engines this machine has, which one is taken, and what is missing of the others.

Looking starts nothing: a daemon that does not run is reported with the command that starts it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.cell import Default
from hopperforge.run.engine import CONTAINER_PROGRAMS, HOST, Client

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

    `version` is what answered (docker's daemon; podman has none), `detail` what it said otherwise; `daemon` whether
    the program of the daemon is installed.
    """

    name: str
    installed: bool
    version: str | None
    detail: tuple[str, ...]
    daemon: bool = False


def look(environ: Mapping[str, str]) -> tuple[EngineState, ...]:
    """Ask docker and podman, in this order of preference."""
    return tuple(_look(program, environ) for program in CONTAINER_PROGRAMS)


def _look(program: str, environ: Mapping[str, str]) -> EngineState:
    path = environ.get("PATH", os.defpath)
    daemon = shutil.which("dockerd", path=f"{path}:/usr/sbin:/sbin") is not None
    if shutil.which(program, path=path) is None:
        return EngineState(name=program, installed=False, version=None, detail=(), daemon=daemon)
    done = Client(program=program, environ=environ).ask(*_QUESTIONS[program])
    version = done.tail[-1] if done.status == 0 and done.tail else None
    return EngineState(name=program, installed=True, version=version, detail=done.tail, daemon=daemon)


def choose_engine(word: str | None, states: Sequence[EngineState], glibc: str) -> Default:
    """Choose an engine, with the reason; `glibc` is this machine's, for the warning.

    | engine=         | docker answers | podman answers | taken                              |
    |-----------------|----------------|----------------|------------------------------------|
    | host            |                |                | host                               |
    | docker, podman  | that one does  |                | that one; ToolError if it does not |
    | not given       |                |                | host, with what tag to expect      |

    An engine that answers is named in the reason and not taken unasked: that it answers does not say that an image can
    be made here, and the host needs nothing that is not there.
    """
    if word == HOST:
        return Default(value=HOST, reason="the word engine=")
    answering = [state for state in states if state.version is not None]
    if word is not None:
        if not any(state.name == word for state in answering):
            (asked,) = (state for state in states if state.name == word)
            raise ToolError(
                f"engine={word}, but {_complaint(asked)}", detail=asked.detail, hint="nox -s doctor -- engine"
            )
        return Default(value=word, reason="the word engine=")
    found = [f"{state.name} {state.version} answers: engine={state.name} links on an older one" for state in answering]
    remedy = found[0] if found else "no container engine answers: see `nox -s doctor -- engine`"
    return Default(
        value=HOST,
        reason=f"the default: packages may need this machine's glibc {glibc}, so expect a tag up to "
        f"manylinux_{glibc.replace('.', '_')}; {remedy}",
    )


def _complaint(state: EngineState) -> str:
    if not state.installed:
        return f"{state.name} is not installed"
    return f"no {state.name} daemon answers" if state.name == "docker" else f"{state.name} does not work"


def diagnose(states: Sequence[EngineState], *, root: bool) -> tuple[str, ...]:
    """Say of each engine what it is, or what is missing and the command that helps."""
    lines: list[str] = []
    for state in states:
        if state.version is not None:
            lines.append(f"{state.name}: {state.version} answers")
            continue
        lines.append(f"{state.name}: {_complaint(state)}")
        lines += [f"  it says: {line}" for line in state.detail[-2:]]
        lines += [f"  {remedy}" for remedy in _remedies(state, root=root)]
    lines.append("host: always there; packages then need a glibc as new as this machine's")
    return tuple(lines)


def _remedies(state: EngineState, *, root: bool) -> tuple[str, ...]:
    if state.name == "podman":
        if not state.installed:
            return ("apt-get install -y --no-install-recommends podman runc",)
        return ("write these lines into ~/.config/containers/containers.conf:", *PODMAN_SETTINGS)
    if not (state.installed and state.daemon):
        return ("apt-get install -y --no-install-recommends docker.io",)
    if root:
        return (
            f"{START_DOCKERD} &",
            "export DOCKER_HOST=unix:///var/tmp/dockerd/sock",
            "kill $(cat /var/tmp/dockerd/pid)   # when done",
        )
    return ("sudo systemctl start docker   # and be a member of the group docker",)
