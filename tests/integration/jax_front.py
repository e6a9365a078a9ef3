"""JAX in a venv of its own, and a fa3_jax library that holds everything but kernels.

Such a hollow library can be asked, lowered with and split, as one of any profile: nothing of that reaches a kernel. It
takes seconds where the kernels of a profile with gradients take an hour.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.command import PROJECT

RECIPES = PROJECT / "recipes"
SCRIPT = Path(__file__).with_name("jax_lowering.py")
# `flatbuffers` is what serialising an exported program needs; JAX 0.5 and 0.6 need `absl-py` there and do not say so.
BESIDE = ("flatbuffers", "absl-py")
KERNELS = re.compile(r"\b_Z\d+(?:run_mha|prepare_varlen)\w+")


@dataclass(frozen=True, kw_only=True)
class Headers:
    """Where upstream's patched source, the toolkit and jaxlib's headers lie."""

    upstream: Path
    toolkit: Path
    jaxlib: Path


def jax_venv(folder: Path, requirement: str) -> Path:
    """Make a venv with JAX for CPUs alone, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", requirement, *BESIDE], check=True)
    return python


def jaxlib_headers(python: Path) -> Path:
    """The FFI's headers of the JAX in a venv."""
    asked = "import jax; print(jax.ffi.include_dir())"
    return Path(subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip())


def look(python: Path, package: Path) -> Mapping[str, Any]:
    """What JAX makes of the package's calls; see jax_lowering.py."""
    done = subprocess.run([python, SCRIPT, package], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel, and return the folder that its packages lie in."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def hollow_package(folder: Path, *, headers: Headers, profile: str, switches: Sequence[str]) -> Path:
    """Make the package of a profile without its kernels, and return the folder that it lies in."""
    package = folder / "fa3_jax"
    shutil.copytree(RECIPES / "fa3-jax" / "python" / "fa3_jax", package, ignore=shutil.ignore_patterns("__pycache__"))
    facts = {"VERSION": "0", "PROFILE": profile, "SWITCHES": frozenset(switches), "CUDA": "13.0", "DRIVER": "580"}
    (package / "_build.py").write_text("".join(f"{name} = {value!r}\n" for name, value in facts.items()))
    _hollow_library(package / "libfa3_jax.so", folder, headers, profile, switches)
    return folder


def _hollow_library(library: Path, folder: Path, headers: Headers, profile: str, switches: Sequence[str]) -> None:
    words = (
        *("g++", "-std=c++17", "-O0", "-fPIC", "-fvisibility=hidden", "-c"),
        *(f"-I{RECIPES / place}" for place in ("fa3-jax/src", "fa3-cpp/include", "fa3-cpp/src")),
        *("-isystem", headers.upstream / "hopper", "-isystem", headers.toolkit / "include", "-isystem", headers.jaxlib),
        *(f"-DFLASHATTENTION_{switch.replace('SM80', 'SM8x')}" for switch in switches),
        *(f'-DHOPPERFORGE_{name}="{value}"' for name, value in {"PROFILE": profile, "VERSION": 0, "CUDA": 0}.items()),
    )
    sources = [path for recipe in ("fa3-cpp", "fa3-jax") for path in sorted((RECIPES / recipe / "src").glob("*.cpp"))]
    objects = [folder / f"{path.parents[1].name}-{path.stem}.o" for path in sources]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: _run(*words, pair[0], "-o", pair[1]), zip(sources, objects, strict=True)))
    stubs = folder / "stubs.s"
    stubs.write_text(_stubs(objects))
    _run(
        *("g++", "-shared", "-o", library, *objects, stubs),
        *(f"-Wl,--wrap={name}" for name in ("exit", "fprintf", "cudaGetLastError")),
        f"-Wl,--version-script={RECIPES / 'fa3-jax' / 'src' / 'exports.map'}",
        *(f"-L{headers.toolkit / 'lib64'}", "-l:libcudart_static.a", "-ldl", "-lrt", "-lpthread"),
    )


def _stubs(objects: Iterable[Path]) -> str:
    """Assembly that ends the process for every kernel that objects ask for."""
    asked = subprocess.run(["nm", "-u", *objects], check=True, capture_output=True, text=True).stdout
    bodies = (f".globl {name}\n{name}: ud2\n" for name in sorted(set(KERNELS.findall(asked))))
    return ".text\n" + "".join(bodies) + '.section .note.GNU-stack,"",@progbits\n'


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
