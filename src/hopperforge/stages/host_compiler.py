"""The host compiler: the g++ that nvcc and the fronts use, known by its parts and the headers it brings.

nvcc accepts g++ up to a newest major, which matrix.yaml says for each toolkit. It is looked for on this machine, or in
a builder image (stages/image.py), by the same questions.
"""

import hashlib
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from hopperforge.errors import ToolError
from hopperforge.model.toolkit import HostCompiler
from hopperforge.run.files import sha256_file
from hopperforge.run.process import run

ARCHIVERS: Final = ("ar", "objcopy")
_PROGRAMS: Final = ("cc1plus", "as", "ld")
# libstdc++ and glibc say their versions in these headers' macros.
_HEADERS: Final = ("-include", "cstddef", "-include", "features.h")


class Machine(Protocol):
    """Where a compiler is looked for."""

    def find(self, program: str) -> Path | None:
        """Find a program by path or on PATH."""

    def sha256(self, path: Path) -> str:
        """Hash a file, links followed."""

    def ask(self, argv: Sequence[str | Path]) -> tuple[int, list[str]]:
        """Run a program in the C locale; give its status and the lines it printed."""


class ThisMachine:
    """This machine, with the user's environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def find(self, program: str) -> Path | None:
        """Find a program by path or on the user's PATH."""
        found = shutil.which(program, path=self._environ.get("PATH", os.defpath))
        return Path(found).absolute() if found is not None else None

    def sha256(self, path: Path) -> str:
        """Hash a file."""
        return sha256_file(path)

    def ask(self, argv: Sequence[str | Path]) -> tuple[int, list[str]]:
        """Run a program."""
        lines: list[str] = []
        done = run(argv, cwd=Path("/"), env={**self._environ, "LC_ALL": "C"}, on_line=lines.append)
        return done.status, lines


def find_host_compiler(environ: Mapping[str, str], gcc_max: int, *, machine: Machine | None = None) -> HostCompiler:
    """Find the compiler CXX names, else g++ on PATH, and fingerprint it; `machine` is this one unless given.

    ToolError if there is none, if it is not GCC, if a part of it is missing, or if its major version is above
    `gcc_max`, the newest that nvcc accepts.
    """
    machine = machine or ThisMachine(environ)
    path = _find(environ, machine)
    _check_gcc(path, machine)
    version = _ask(path, machine, "-dumpfullversion", "-dumpversion")[-1]
    _check_version(path, version, gcc_max)
    parts = {"driver": path, **{name: _program(path, name, machine) for name in _PROGRAMS}}
    texts = {
        "configuration": _lines_of(_ask(path, machine, "-v"), ("Target:", "Configured with:", "gcc version")),
        "headers": sorted(_ask(path, machine, "-E", "-dM", "-x", "c++", *_HEADERS, os.devnull)),
    }
    fingerprint = {name: machine.sha256(part) for name, part in parts.items()}
    fingerprint |= {name: hashlib.sha256("\n".join(lines).encode()).hexdigest() for name, lines in texts.items()}
    return HostCompiler(path=path, version=version, fingerprint=fingerprint)


def find_archivers(machine: Machine) -> dict[str, str]:
    """Give the versions of the programs that make static libraries, by name; ToolError where one is missing."""
    found = {}
    for name in ARCHIVERS:
        path = machine.find(name)
        if path is None:
            message = f"there is no {name} on PATH, and a static library is made with it"
            raise ToolError(message, hint="apt-get install binutils")
        found[name] = _ask(path, machine, "--version")[0].split()[-1]
    return found


def _find(environ: Mapping[str, str], machine: Machine) -> Path:
    wanted = environ.get("CXX") or "g++"
    if len(shlex.split(wanted)) != 1:
        message = f"CXX is {wanted!r}, but it has to be one program without arguments"
        raise ToolError(message, hint="export CXX=g++")
    found = machine.find(wanted)
    if found is not None:
        return found
    if "CXX" in environ:
        raise ToolError(f"CXX is {wanted!r}, which is not there", hint="unset CXX   # or set it to a g++")
    message = "there is no C++ compiler: g++ is not on PATH, and nvcc needs one"
    raise ToolError(message, hint="apt-get install g++")


def _check_gcc(path: Path, machine: Machine) -> None:
    lines = _ask(path, machine, "--version")
    text = "\n".join(lines)
    if "clang" in text or "Free Software Foundation" not in text:
        raise ToolError(
            f"{path} is not g++, the one host compiler that kernels and fronts are built and tested with",
            detail=[f"it says: {lines[0]}"],
            hint="apt-get install g++ && export CXX=g++",
        )


def _check_version(path: Path, version: str, gcc_max: int) -> None:
    major = version.partition(".")[0]
    if not major.isdigit():
        raise ToolError(f"{path} gives its version as {version!r}", hint="export CXX=g++")
    if int(major) > gcc_max:
        raise ToolError(
            f"{path} is g++ {version}, but the CUDA toolkit accepts g++ up to {gcc_max}",
            hint=f"apt-get install g++-{gcc_max} && export CXX=g++-{gcc_max}",
        )


def _program(path: Path, name: str, machine: Machine) -> Path:
    """Find a program the compiler runs: it gives a path, or a bare name to look up on PATH."""
    said = _ask(path, machine, f"-print-prog-name={name}")[-1]
    found = machine.find(said)
    if found is None:
        message = f"{path} cannot compile: its part {name} is missing"
        raise ToolError(message, hint="apt-get install --reinstall g++ binutils")
    return found


def _lines_of(lines: list[str], starts: tuple[str, ...]) -> list[str]:
    return [line for line in lines if line.startswith(starts)]


def _ask(path: Path, machine: Machine, *words: str) -> list[str]:
    """Give what the compiler prints; at least one line. ToolError otherwise."""
    status, lines = machine.ask([path, *words])
    if status != 0 or not lines:
        message = f"{path} {words[0]} ended with status {status}, so it cannot be used"
        raise ToolError(message, detail=lines[-5:], hint="apt-get install --reinstall g++")
    return lines
