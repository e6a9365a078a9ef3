"""A tiny recipe with a front of its own, and all that one build of it takes: real g++, no CUDA."""

import hashlib
import subprocess
from pathlib import Path

from tests.unit import wheel_zoo as zoo

from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.pack import KernelPack, PackedUnit
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.request import Kernels
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.run.workspace import Workspace
from hopperforge.stages.front_inputs import FrontInputs
from hopperforge.store.packs import store_pack

CUDA = ToolkitVersion.parse("13.0")
EPOCH = 1_764_201_600
FRONT = Front(
    kind=FrontKind.CPP,
    sources=("src/*.cpp",),
    library="lib/libtiny.so.1",
    exports="src/exports.map",
    symbols=("tiny_*",),
    wrap=("tiny_outside",),
    archive="lib/libtiny.a",
    programs={"bin/tiny_exec": ("exec/*.cpp",)},
    files={"include/**/*.h": "include", "cmake/*": "lib/cmake/tiny"},
    tarball=True,
)
PROFILE = Profile(
    name="small",
    summary="",
    switches=frozenset({"DISABLE_SM80", "DISABLE_FP8"}),
    architectures=frozenset({"sm_90a"}),
    budget=Budget(wheel=1_000_000, library=1_000_000),
)
TEXTS = {
    "README.md": "# tiny\n",
    "include/tiny/api.h": '#pragma GCC visibility push(default)\nextern "C" int tiny_answer();\n'
    'extern "C" const char *tiny_version();\n#pragma GCC visibility pop\n',
    "src/api.cpp": '#include "tiny/api.h"\nint kernel();\nextern "C" int __wrap_tiny_outside() { return 2; }\n'
    "int tiny_answer() { return 40 + kernel(); }\n"
    "const char *tiny_version() { return HOPPERFORGE_VERSION; }\n"
    "#if !defined(FLASHATTENTION_DISABLE_SM8x) || !defined(FLASHATTENTION_DISABLE_FP8)\n#error no switches\n#endif\n",
    "src/exports.map": "{ global: tiny_*; local: *; };\n",
    "exec/main.cpp": '#include <cstdio>\n#include <tiny/api.h>\nint main() { std::printf("%d %s\\n", tiny_answer(), '
    "tiny_version()); }\n",
    "cmake/tiny-config.cmake.in": "set(version @VERSION@)\nset(full @FULL_VERSION@)\nset(name @LIBRARY@)\n",
    "python/tiny/__init__.py": '"""Tiny."""\n',
}
KERNEL = 'extern "C" int tiny_outside();\ninline int once = 0;\nint kernel() { return tiny_outside() + once; }\n'


def recipe(folder: Path, front: Front = FRONT) -> Recipe:
    """Write the recipe's files below `folder`."""
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Recipe(
        name="tiny",
        folder=folder,
        pin="v1",
        package=PackageNames(distribution="tiny-lib", package="tiny", module="tiny", version="1.2", summary="A test"),
        promise=None,
        cudart=Cudart.STATIC,
        needed=frozenset(),
        default_profile="small",
        profiles={"small": PROFILE},
        front=front,
    )


def inputs(folder: Path, front: Front = FRONT) -> FrontInputs:
    """Everything that decides the bytes of a build of the recipe; the toolkit has an empty CUDA runtime."""
    made = recipe(folder / "recipe", front)
    for place in ("source/hopper", "source/csrc/cutlass/include", "toolkit/include/cccl", "toolkit/lib64"):
        (folder / place).mkdir(parents=True)
    subprocess.run(["ar", "rcsD", folder / "toolkit/lib64/libcudart_static.a"], check=True)
    build = Build(
        recipe=made,
        profile=PROFILE,
        cuda=CUDA,
        torch=None,
        abi=AbiClass.NONE,
        platform="linux_x86_64",
        kernels=Kernels.PACK,
        cells=(),
    )
    pin = UpstreamPin(name="v1", commit="de" * 20, epoch=EPOCH, trees={"hopper": "0a" * 20}, origins=())
    return FrontInputs(
        build=build,
        source=PatchedSource(
            pin=pin, root=folder / "source", origin="sdist", patches={}, kernel_tree="1" * 64, front_tree="2" * 64
        ),
        toolkit=Toolkit(
            version=CUDA, release="13.0.88", origin=ToolkitOrigin.SYSTEM, root=folder / "toolkit", fingerprint={}
        ),
        toolkit_fact=ToolkitFact(
            version=CUDA, release="13.0.88", driver="580", gcc_max=15, origins=(ToolkitOrigin.SYSTEM,), wheels=()
        ),
        compiler=HostCompiler(path=Path("/usr/bin/g++"), version="12", fingerprint={}),
        licences={"LICENSE": b"yes\n"},
    )


def pack(folder: Path) -> KernelPack:
    """A pack of one object, compiled from a kernel that is none."""
    (folder / "kernel.cpp").write_text(KERNEL)
    subprocess.run(["g++", "-fPIC", "-c", "kernel.cpp", "-o", "kernel.o"], cwd=folder, check=True)
    data = (folder / "kernel.o").read_bytes()
    unit = PackedUnit(
        path="kernel.cu", key="3" * 64, sha256=hashlib.sha256(data).hexdigest(), size=len(data), cost=None
    )
    return store_pack(folder / "packs", [unit], lambda _unit: data, compiled=0)


def workspace(folder: Path) -> Workspace:
    """As the wheels' zoo has it."""
    return zoo.workspace(folder)
