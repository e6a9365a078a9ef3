"""Tiny wheels around real shared libraries, good ones and each kind of bad one, for tests of what reads wheels.

The libraries are compiled with g++ in a fraction of a second and kept for the session.
"""

import functools
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from hopperforge.model.recipe import Promise
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.wheel_archive import WheelArchive, make_record, read_wheel

DISTRIBUTION = "fa3-fwd"
VERSION = "3.0.0+cu130"
REQUIRES = ("torch>=2.9",)
REQUIRES_PYTHON = ">=3.9"
INFO = "fa3_fwd-3.0.0+cu130.dist-info"
LIBRARY = "fa3_fwd/_C.abi3.so"
RAW_TAG = "cp39-abi3-linux_x86_64"
TAG = "cp39-abi3-manylinux_2_17_x86_64"
EPOCH = 1_700_000_000

DEVICE_CODE = Path(__file__).parents[1] / "data" / "device_code"
INIT = 'extern "C" void* PyInit__C() { return 0; }\n'
# asks for timespec_get@GLIBC_2.16, and for nothing newer
NEWER = """
#include <time.h>
extern "C" void* PyInit__C(timespec* t) { return timespec_get(t, 1) ? t : 0; }
"""
PROMISE = Promise(
    module="fa3_fwd_interface", operators=("fa3_fwd::fwd",), function="flash_attn_func", guard="needs a GPU"
)
HIDE_ALL = "{ global: PyInit_*; local: *; };\n"


@functools.cache
def library(source: str = INIT, *flags: str, needed: tuple[str, ...] = (), device_code: str = "") -> bytes:
    """Compile `source` to a shared library that shows PyInit_* only.

    `needed` are libraries to name in DT_NEEDED (empty ones are made); `device_code` names a file of tests/data.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source.cc").write_text(source)
        (folder / "exports.map").write_text(HIDE_ALL)
        inputs = ["source.cc"]
        if device_code:
            (folder / "device.s").write_text(_embed(DEVICE_CODE / device_code))
            inputs.append("device.s")
        for stub in needed:
            _gxx(folder, "-shared", "-x", "c++", "/dev/null", f"-Wl,-soname,{stub}", "-o", stub)
        # libc is named even where nothing of it is used: auditwheel takes the kind of libc from it
        links = ("-Wl,--no-as-needed", "-L.", *(f"-l:{stub}" for stub in needed))
        script = () if "-DSHOW_ALL" in flags else ("-Wl,--version-script=exports.map",)
        _gxx(folder, "-shared", "-fPIC", "-s", *flags, *inputs, *links, *script, "-o", "made.so")
        return (folder / "made.so").read_bytes()


def _gxx(folder: Path, *arguments: str) -> None:
    subprocess.run(["g++", *arguments], cwd=folder, check=True, env={"PATH": os.environ["PATH"]})


def _embed(fatbin: Path) -> str:
    return f'.section .nv_fatbin,"a"\n.balign 8\n.incbin "{fatbin}"\n.section .note.GNU-stack,"",@progbits\n'


def metadata(version: str = VERSION, name: str = DISTRIBUTION, requires: tuple[str, ...] = REQUIRES) -> bytes:
    """METADATA of the zoo's wheels."""
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", f"Requires-Python: {REQUIRES_PYTHON}"]
    return "\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires), "", "The text.\n"]).encode()


def wheel_file(tag: str = RAW_TAG, *, pure: str = "false") -> bytes:
    """WHEEL of the zoo's wheels."""
    return f"Wheel-Version: 1.0\nGenerator: zoo\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()


def files(changes: Mapping[str, bytes | None] | None = None, *, tag: str = RAW_TAG) -> dict[str, bytes]:
    """The members of a good wheel with `changes` made: bytes put in, None takes out; RECORD is right for the rest."""
    content: dict[str, bytes | None] = {
        "fa3_fwd/__init__.py": b'"""A package."""\n',
        LIBRARY: library(),
        f"{INFO}/METADATA": metadata(),
        f"{INFO}/WHEEL": wheel_file(tag),
        **(changes or {}),
    }
    kept = {name: data for name, data in content.items() if data is not None}
    record = f"{INFO}/RECORD"
    return {**kept, record: kept.get(record, make_record(kept, record))}


def write(folder: Path, members: Mapping[str, bytes], *, tag: str = RAW_TAG, name: str | None = None) -> Path:
    """Write members as they are to a wheel file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"fa3_fwd-{VERSION}-{tag}.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


def opened(
    folder: Path, changes: Mapping[str, bytes | None] | None = None, *, tag: str = TAG, name: str | None = None
) -> WheelArchive:
    """A wheel written with `changes` and read again."""
    return read_wheel(write(folder, files(changes, tag=tag), tag=tag, name=name))


def workspace(folder: Path) -> Workspace:
    """A workspace in `folder` with the test run's own environment and a reporter that keeps what it hears."""
    return Workspace(
        project=folder / "project",
        cache=folder / "cache",
        wheelhouse=folder / "wheelhouse",
        environ=dict(os.environ),
        reporter=Recorder(),
    )
