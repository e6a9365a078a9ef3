"""The host compiler: the g++ that nvcc and the fronts use, known by its parts and the headers it brings.

nvcc accepts g++ up to a newest major, which matrix.yaml says for each toolkit.
"""

import hashlib
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.toolkit import HostCompiler
from hopperforge.run.files import sha256_file
from hopperforge.run.process import run

_PROGRAMS: Final = ("cc1plus", "as", "ld")
# libstdc++ and glibc say their versions in these headers' macros.
_HEADERS: Final = ("-include", "cstddef", "-include", "features.h")


def find_host_compiler(environ: Mapping[str, str], gcc_max: int) -> HostCompiler:
    """Find the compiler CXX names, else g++ on PATH, and fingerprint it.

    ToolError if there is none, if it is not GCC, if a part of it is missing, or if its major version is above
    `gcc_max`, the newest that nvcc accepts.
    """
    path = _find(environ)
    _check_gcc(path, environ)
    version = _ask(path, environ, "-dumpfullversion", "-dumpversion")[-1]
    _check_version(path, version, gcc_max)
    programs = {name: _program(path, name, environ) for name in _PROGRAMS}
    parts = {"driver": path.resolve(), **programs}
    texts = {
        "configuration": _lines_of(_ask(path, environ, "-v"), ("Target:", "Configured with:", "gcc version")),
        "headers": sorted(_ask(path, environ, "-E", "-dM", "-x", "c++", *_HEADERS, os.devnull)),
    }
    fingerprint = {name: sha256_file(part) for name, part in parts.items()}
    fingerprint |= {name: hashlib.sha256("\n".join(lines).encode()).hexdigest() for name, lines in texts.items()}
    return HostCompiler(path=path, version=version, fingerprint=fingerprint)


def _find(environ: Mapping[str, str]) -> Path:
    wanted = environ.get("CXX") or "g++"
    if len(shlex.split(wanted)) != 1:
        message = f"CXX is {wanted!r}, but it has to be one program without arguments"
        raise ToolError(message, hint="export CXX=g++")
    found = shutil.which(wanted, path=environ.get("PATH", os.defpath))
    if found is not None:
        return Path(found).absolute()
    if "CXX" in environ:
        raise ToolError(f"CXX is {wanted!r}, which is not there", hint="unset CXX   # or set it to a g++")
    message = "there is no C++ compiler: g++ is not on PATH, and nvcc needs one"
    raise ToolError(message, hint="apt-get install g++")


def _check_gcc(path: Path, environ: Mapping[str, str]) -> None:
    lines = _ask(path, environ, "--version")
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


def _program(path: Path, name: str, environ: Mapping[str, str]) -> Path:
    """Find a program the compiler runs: it gives a path, or a bare name to look up on PATH."""
    said = _ask(path, environ, f"-print-prog-name={name}")[-1]
    found = shutil.which(said, path=environ.get("PATH", os.defpath))
    if found is None:
        message = f"{path} cannot compile: its part {name} is missing"
        raise ToolError(message, hint="apt-get install --reinstall g++ binutils")
    return Path(found).resolve()


def _lines_of(lines: list[str], starts: tuple[str, ...]) -> list[str]:
    return [line for line in lines if line.startswith(starts)]


def _ask(path: Path, environ: Mapping[str, str], *words: str) -> list[str]:
    """Give what the compiler prints, in the C locale; at least one line. ToolError otherwise."""
    lines: list[str] = []
    done = run([path, *words], cwd=Path("/"), env={**environ, "LC_ALL": "C"}, on_line=lines.append)
    if done.status != 0 or not lines:
        message = f"{path} {words[0]} ended with status {done.status}, so it cannot be used"
        raise ToolError(message, detail=done.tail[-5:], hint="apt-get install --reinstall g++")
    return lines
