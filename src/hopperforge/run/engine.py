"""Engines: where a stage's commands run. On this machine as it is, or each in a fresh container that is always removed.

A command is told which folders it sees and where. In a container it sees nothing else of the machine, has no network,
cannot write outside its writable folders, and may not take more memory than it is given.
"""

import contextlib
import hashlib
import json
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from hopperforge.errors import ToolError
from hopperforge.report import Reporter
from hopperforge.run.process import Completed, run

HOST: Final = "host"
CONTAINER_PROGRAMS: Final = ("docker", "podman")

MEASURE: Final = "/opt/hopperforge/measure.py"
"""What stands before every command in a container; builder images have it here."""

_USAGE: Final = "hopperforge-usage: "  # image/measure.py prints it
# The engine itself failed; the command cannot be invoked; it is not there.
_ENGINE_STATUSES: Final = frozenset({125, 126, 127})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or a file of this machine and where a container sees it; read-only unless `writable`."""

    outside: Path
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run: `argv`, `cwd` and `env` as they are where it runs (see `Engine.place`).

    `name` tells containers apart, together with the writable mounts; `memory` is in bytes.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    memory: int | None


class Engine(Protocol):
    """Runs commands."""

    @property
    def name(self) -> str:
        """The word for it: docker, podman or host."""

    @property
    def ground(self) -> str:
        """What keys hold in place of everything a compiler reads beside toolkit and source: "host" or a base's id."""

    @property
    def keep(self) -> bool:
        """Whether folders of failed commands stay for the user to look into."""

    def place(self, mount: Mount) -> Path:
        """Where a command sees the folder of `mount`."""

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_heartbeat: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        """Run a command as `run.process.run` does; ToolError if the engine cannot run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEngine:
    """This machine as it is: mounts and the memory limit are left to the user."""

    name: str = HOST
    ground: str = HOST
    keep: bool = False

    def place(self, mount: Mount) -> Path:
        """Find the folder where it lies."""
        return mount.outside

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_heartbeat: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        """Run the command as a process."""
        return run(
            command.argv,
            cwd=command.cwd,
            env=command.env,
            log=log,
            on_line=on_line,
            on_heartbeat=on_heartbeat,
            stop=stop,
            keep_open=keep_open,
        )


ON_HOST: Final[Engine] = HostEngine()


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The command line of docker or podman; `environ` is all it gets, DOCKER_HOST and CONTAINERS_CONF included."""

    program: str
    environ: Mapping[str, str]

    def ask(self, *words: str | Path) -> Completed:
        """Run one command of the client to its end; its status is the caller's to judge."""
        return run([self.program, *words], cwd=Path("/"), env=self.environ)

    def do(self, *words: str | Path, what: str) -> Completed:
        """Run one command that has to succeed; ToolError says that `what` failed, with the client's last lines."""
        done = self.ask(*words)
        if done.status != 0:
            raise ToolError(
                f"{self.program} {what} failed with status {done.status}",
                detail=done.tail,
                hint="nox -s doctor -- engine",
            )
        return done

    def inspect(self, reference: str) -> Mapping[str, object] | None:
        """Give what the engine knows of an image; None if it has none of this name or does not answer."""
        lines: list[str] = []
        done = run([self.program, "image", "inspect", reference], cwd=Path("/"), env=self.environ, on_line=lines.append)
        if done.status != 0:
            return None
        start = lines.index("[")
        return dict(json.loads("\n".join(lines[start:]))[0])

    def remove(self, *names: str) -> None:
        """Remove containers, running or not; those that are not there are fine."""
        quick = ("--time", "0", "--ignore") if self.program == "podman" else ()
        if names:
            self.ask("rm", "--force", "--volumes", *quick, *names)

    def labelled(self, label: str) -> tuple[str, ...]:
        """List the containers that carry a label, running or not."""
        return self.ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").tail


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """Runs every command in a container of its own, from `image`, the engine's id of it.

    `python` is the image's interpreter that runs MEASURE, which has to be in the image or among a command's mounts.
    """

    client: Client
    image: str
    ground: str
    reporter: Reporter
    keep: bool = False
    python: str = "/opt/python/cp39-cp39/bin/python"
    user: str = field(default_factory=lambda: f"{os.getuid()}:{os.getgid()}")

    @property
    def name(self) -> str:
        """The word for it, which is the program."""
        return self.client.program

    def place(self, mount: Mount) -> Path:
        """Find the folder where the container has it."""
        return Path(mount.inside)

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_heartbeat: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        """Run the command in a container that is gone afterwards, whatever happens.

        The environment is the command's with the image's PATH. What the command took is measured inside.
        """
        name = container_name(command)
        with self._removed(name):
            done = run(
                [self.client.program, *self.arguments(command, name), self.python, "-I", MEASURE, *command.argv],
                cwd=Path("/"),
                env=self.client.environ,
                log=log,
                on_line=on_line,
                on_heartbeat=on_heartbeat,
                stop=stop,
                keep_open=keep_open,
            )
        usage, tail = split_usage(done.tail)
        if usage is None and done.status in _ENGINE_STATUSES:
            raise ToolError(
                f"{self.name} could not run a command, or stopped answering while it ran (status {done.status})",
                detail=[*tail, *([f"log: {log}"] if log else [])],
                hint="nox -s doctor -- engine",
            )
        if done.status != 0 and self.keep:
            self.reporter.note(f"to get in: {shlex.join(self._way_in(command))}")
        return replace(done, argv=command.argv, peak_rss=usage or done.peak_rss, tail=tail)

    @contextlib.contextmanager
    def _removed(self, name: str) -> Iterator[None]:
        """Remove what a killed run left under this name, and whatever is left at the end."""
        self.client.remove(name)
        try:
            yield
        finally:
            self.client.remove(name)

    def arguments(self, command: Command, name: str) -> tuple[str, ...]:
        """Make the words from `run` to the image."""
        return (
            *("run", "--rm", "--pull=never", f"--name={name}", "--network=none", "--read-only", "--cap-drop=ALL"),
            "--security-opt=no-new-privileges",
            *self._user(),
            *memory_limit(command.memory),
            *(f"--mount={mount_text(mount)}" for mount in command.mounts),
            f"--workdir={command.cwd}",
            *(f"--env={key}={value}" for key, value in command.env.items() if key != "PATH"),
            self.image,
        )

    def _user(self) -> tuple[str, ...]:
        """Own what is written: without root, podman maps us to root inside unless told to keep our number."""
        rootless = self.client.program == "podman" and not self.user.startswith("0:")
        return (f"--user={self.user}", *(("--userns=keep-id",) if rootless else ()))

    def _way_in(self, command: Command) -> tuple[str, ...]:
        words = self.arguments(command, container_name(command) + "-look")
        return (self.client.program, "run", "--interactive", "--tty", *words[1:], "/bin/sh")


def container_name(command: Command) -> str:
    """Name a container after its command and where it writes: equal for a rerun, which removes what is left."""
    places = sorted(str(mount.outside) for mount in command.mounts if mount.writable)
    return "hopperforge-" + hashlib.sha256("\0".join([command.name, *places]).encode()).hexdigest()[:24]


def memory_limit(memory: int | None) -> tuple[str, ...]:
    """Limit memory, swap included."""
    return () if memory is None else (f"--memory={memory}", f"--memory-swap={memory}")


def mount_text(mount: Mount) -> str:
    """Write a bind mount for --mount; ToolError for a path that its comma-separated form cannot hold."""
    if any(character in f"{mount.outside}" for character in ',"\n'):
        raise ToolError(
            f"{mount.outside} cannot be shown to a container: its name has a comma, a quote or a line break",
            hint="export HOPPERFORGE_CACHE=/a/plainer/path",
        )
    return f"type=bind,source={mount.outside},target={mount.inside}" + ("" if mount.writable else ",readonly")


def split_usage(tail: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
    """Take the peak in bytes out of a command's last lines; None if it never came to say it."""
    for index in range(len(tail) - 1, -1, -1):
        if tail[index].startswith(_USAGE):
            peak = int(json.loads(tail[index].removeprefix(_USAGE))["peak_rss"])
            return peak, (*tail[:index], *tail[index + 1 :])
    return None, tuple(tail)
