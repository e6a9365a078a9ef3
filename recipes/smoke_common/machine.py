"""The machine, as gpu.json names it."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = 96  # what NVML needs for a version, with some to spare


def driver_version(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """The driver's own version by its management library; where that is missing or fails, the CUDA it serves.

    `load` opens a library by name. Raises OSError where there is no driver at all.
    """
    text = ctypes.create_string_buffer(ROOM)
    try:
        library = load("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, ROOM) == 0:
            return text.value.decode()
    version = ctypes.c_int(0)
    load("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def torch_facts(torch: Any) -> dict[str, str]:
    """What torch runs on; `cuda` is that of torch."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
    }
