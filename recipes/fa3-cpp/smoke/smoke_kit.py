"""The package under test: unpacked, its library loaded, its executable run. Standard library alone."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capi import Library

HEAD_DIMS = (64, 96, 128, 192, 256)
DTYPES = {"bf16": "", "fp16": "FP16", "e4m3": "FP8"}


@dataclass(frozen=True)
class Subject:
    """The wheel, where it was unpacked, and its library."""

    wheel: Path
    sha256: str
    prefix: Path
    library: Library

    @property
    def profile(self) -> str:
        """Which features are compiled in."""
        name: bytes = self.library.build.profile
        return name.decode()

    @property
    def switches(self) -> frozenset[str]:
        """Upstream's switches that are on."""
        names: bytes = self.library.build.switches
        return frozenset(names.decode().split())

    def has(self, feature: str) -> bool:
        """Whether the profile holds a feature."""
        return f"DISABLE_{feature}" not in self.switches

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Head dims with kernels of their own."""
        return tuple(dim for dim in HEAD_DIMS if self.has(f"HDIM{dim}"))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types, as the executable names them."""
        return tuple(dtype for dtype, feature in DTYPES.items() if not feature or self.has(feature))

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
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    prefix = folder / "hopperforge_fa3"
    (prefix / "bin" / "flash_attention_exec").chmod(0o755)
    library = Library(prefix / "lib" / "libhopperforge_fa3.so.1")
    return Subject(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest(), prefix, library)


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

    def version(self) -> str:
        """The driver's own version, or its CUDA version where its management library is missing."""
        text = ctypes.create_string_buffer(96)
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            version = ctypes.c_int(0)
            self.c.cuDriverGetVersion(ctypes.byref(version))
            return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        library.nvmlInit_v2()
        library.nvmlSystemGetDriverVersion(text, 96)
        return text.value.decode()


def machine_facts(subject: Subject, driver: Driver) -> dict[str, Any]:
    """The machine as gpu.json names it."""
    return {
        "gpu": driver.name(),
        "driver": driver.version(),
        "cuda": subject.library.build.cuda.decode(),
        "python": platform.python_version(),
    }
