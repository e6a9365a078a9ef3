"""The package under test: unpacked, its library loaded, its executable run. Standard library alone."""

from __future__ import annotations

import ctypes
import functools
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capi import Library
from refusals import good_forward
from smoke_common.machine import driver_version
from smoke_common.wheel import Build, Fa3UnderTest, unpack


@dataclass(frozen=True)
class Subject(Fa3UnderTest):
    """The wheel under test, where its package was unpacked, and its library."""

    prefix: Path
    library: Library

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types, as the executable names them."""
        return self.served("bf16", {"FP16": "fp16", "FP8": "e4m3"})

    def spread(self) -> dict[str, list[Any]]:
        """What tests are spread over, by the names of their arguments."""
        return self.parameters(self.dtypes)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        executable = self.prefix / "bin" / "flash_attention_exec"
        return subprocess.run([executable, *words], capture_output=True, text=True, timeout=300, check=False)  # noqa: S603

    def require_right(self, *words: str) -> str:
        """Run the executable; it must find its own results right."""
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        assert "WRONG" not in done.stdout
        return done.stdout


def load_subject(wheel: Path, folder: Path) -> Subject:
    """Unpack the wheel into a folder and load its library; OSError if that cannot be."""
    unpacked = unpack(wheel, folder)
    prefix = folder / "hopperforge_fa3"
    (prefix / "bin" / "flash_attention_exec").chmod(0o755)
    library = Library(prefix / "lib" / "libhopperforge_fa3.so.1")
    return Subject(wheel=unpacked, build=read_build(library), prefix=prefix, library=library)


def read_build(library: Library) -> Build:
    """What the library says it was built of."""
    told = library.build
    return Build(
        profile=told.profile.decode(), cuda=told.cuda.decode(), switches=frozenset(told.switches.decode().split())
    )


class Driver:
    """What the kit needs of libcuda, which every node with a GPU has."""

    def __init__(self) -> None:
        self.c = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self._require(self.c.cuInit(0), "cuInit")
        self._require(self.c.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), "cuDevicePrimaryCtxRetain")
        self._require(self.c.cuCtxSetCurrent(context), "cuCtxSetCurrent")

    @staticmethod
    def _require(error: int, what: str) -> None:
        if error:
            raise OSError(f"{what} gave {error}")

    def allocate(self, bytes_: int) -> int:
        """Memory of the device, never given back: the kit's process ends soon."""
        address = ctypes.c_uint64()
        self._require(self.c.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(bytes_)), "cuMemAlloc")
        self._require(self.c.cuMemsetD8_v2(address, 0, ctypes.c_size_t(bytes_)), "cuMemsetD8")
        return address.value

    def free_bytes(self) -> int:
        """Memory of the device that is free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._require(self.c.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
        return free.value

    def synchronize(self) -> int:
        """Wait for the device; its error."""
        error: int = self.c.cuCtxSynchronize()
        return error

    def name(self) -> str:
        """The GPU's name."""
        text = ctypes.create_string_buffer(96)
        self._require(self.c.cuDeviceGetName(text, 96, 0), "cuDeviceGetName")
        return text.value.decode()


@functools.cache
def open_driver() -> Driver:
    """The driver, opened once. Raises OSError where there is no GPU."""
    return Driver()


def missing_gpu(subject: Subject) -> str | None:
    """Why the kernels cannot run here, in the library's own words; None where they can."""
    try:
        open_driver()
    except OSError as error:
        return f"no GPU: {error}"
    status, _ = subject.library.workspace(good_forward(subject.library, subject.head_dims[0]))
    return subject.library.message if status else None


def machine_facts(subject: Subject) -> dict[str, str]:
    """The machine as gpu.json names it; `cuda` is the runtime inside the library."""
    return {
        "gpu": open_driver().name(),
        "driver": driver_version(),
        "cuda": subject.build.cuda,
        "python": platform.python_version(),
    }
