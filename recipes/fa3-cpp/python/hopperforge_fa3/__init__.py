"""Where the C and C++ library of FlashAttention-3 lies that this package carries; nothing is loaded on import.

g++ main.cpp -I"$(python -m hopperforge_fa3 --include-dir)" ...
cmake -Dhopperforge_fa3_DIR="$(python -m hopperforge_fa3 --cmake-dir)" ...
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["cmake_dir", "executable", "get_include", "get_library_dir", "pkgconfig_dir"]

_ROOT = Path(__file__).resolve().parent


def get_include() -> str:
    """The folder for -I; headers are included as `hopperforge/flash_attention.h`."""
    return str(_ROOT / "include")


def get_library_dir() -> str:
    """The folder for -L and -rpath, with libhopperforge_fa3.so and libhopperforge_fa3.a."""
    return str(_ROOT / "lib")


def cmake_dir() -> str:
    """The folder for CMake's hopperforge_fa3_DIR."""
    return str(_ROOT / "lib" / "cmake" / "hopperforge_fa3")


def pkgconfig_dir() -> str:
    """The folder for PKG_CONFIG_PATH."""
    return str(_ROOT / "lib" / "pkgconfig")


def executable() -> str:
    """The program that runs attention, checks it against its own reference and prints TFLOP/s."""
    return str(_ROOT / "bin" / "flash_attention_exec")
