"""The torch front: upstream's API file, bound to a kernel pack and to torch's headers, as a wheel.

Upstream's patched setup.py does the binding (see setup_shim). torch comes as the unpacked headers and libraries
of its wheel; nothing is imported from it.
"""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ninja

from hopperforge.errors import CompileError
from hopperforge.model.cell import Build
from hopperforge.model.keys import content_key
from hopperforge.model.machine import Sizing
from hopperforge.model.matrix import TorchFact
from hopperforge.model.pack import KernelPack
from hopperforge.model.recipe import Cudart
from hopperforge.model.request import Kernels
from hopperforge.model.wheel import RawWheel
from hopperforge.provenance.contents import EXPRESSION
from hopperforge.run.files import sha256_file, storage_guard, temporary_folder, write_atomic
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace
from hopperforge.setup_job import SHIM, ApiJob, job_environment, shim_hashes, write_job
from hopperforge.stages.front_inputs import FrontInputs, build_info, licence_hashes, requirements, writers
from hopperforge.stages.patch import lay_out
from hopperforge.stages.repair import repair_settings
from hopperforge.stages.torch_kit import TorchKit
from hopperforge.store.packs import read_pack

_CUDART: Final = {
    Cudart.STATIC: ("-l:libcudart_static.a", "-ldl", "-lrt", "-lpthread"),
    Cudart.SHARED: ("-lcudart",),
}


def link_arguments(build: Build, *, toolkit: str, torch_lib: str, exports: str) -> tuple[str, ...]:
    """Make the link's arguments after the objects.

    torch's libraries are named although the linker sees few uses of them: without them in DT_NEEDED an import
    before torch's own would fail with undefined symbols.
    """
    needed = tuple(f"-l:{name}" for name in sorted(build.needed))
    return (
        "-Wl,--no-as-needed",
        f"-L{torch_lib}",
        *needed,
        "-Wl,--as-needed",
        f"-L{toolkit}/lib64",
        *_CUDART[build.recipe.cudart],
        f"-Wl,--version-script={exports}",
        "-Wl,--exclude-libs,ALL",
        "-Wl,--build-id=sha1",
        "-Wl,--gc-sections",
        "-Wl,-z,relro,-z,now",
        "-Wl,--strip-all",
    )


def compile_arguments(fact: TorchFact) -> tuple[str, ...]:
    """Make the API file's arguments that follow from the torch it is bound against, after upstream's own."""
    return (f"-std=c++{fact.cxx_standard}", f"-D_GLIBCXX_USE_CXX11_ABI={int(fact.cxx11_abi)}")


def placeless_link(build: Build) -> tuple[str, ...]:
    """Make the link's arguments with names in place of folders, for keys and records."""
    return link_arguments(build, toolkit="toolkit", torch_lib="torch", exports="exports.map")


def build_key(inputs: FrontInputs, kernels: str, sbom: bytes) -> str:
    """Key a package by everything that changes its bytes; `kernels` is the key of its pack, or of its sources inline.

    Places are left out: the link's arguments are keyed without folders. `sbom` is the bill of materials.
    """
    build = inputs.build
    return content_key(
        "build",
        {
            "kernels": kernels,
            "mode": build.kernels,
            "front_tree": inputs.source.front_tree,
            "front_files": _front_files(build),
            "shim": shim_hashes(),
            "info": build_info(inputs),
            "repair": repair_settings(build.needed),
            "link": placeless_link(build),
            "compile": compile_arguments(inputs.torch),
            "summary": build.recipe.package.summary,
            "licence": EXPRESSION,
            "licences": licence_hashes(inputs),
            "sbom": hashlib.sha256(sbom).hexdigest(),
            "torch_wheel": inputs.torch_wheel.sha256,
            "toolkit": inputs.toolkit.key,
            "host_compiler": inputs.compiler.key,
            "epoch": inputs.source.pin.epoch,
            "writers": writers(inputs.image),
            "image": "host" if inputs.image is None else inputs.image.id,
        },
    )


def _front_files(build: Build) -> dict[str, str]:
    """Hash the recipe's own files that go into the package, by their path in the recipe."""
    folder = build.recipe.folder
    files = [*sorted((folder / "python").rglob("*.py")), folder / "README.md"]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def bind(
    inputs: FrontInputs, pack: KernelPack | None, torch: TorchKit, *, sizing: Sizing, out: Path, workspace: Workspace
) -> RawWheel:
    """Make the wheel in `out`, tagged for the machine it was linked on.

    Without a pack upstream's own build compiles the kernels too. Raises CompileError.
    """
    build = inputs.build
    log = workspace.logs / "front" / f"{build.recipe.name}-{build.version}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    workspace.work.mkdir(parents=True, exist_ok=True)
    with storage_guard(workspace.work), temporary_folder(workspace.work, "front-") as folder:
        lay_out(inputs.source, folder)
        add_own_files(inputs, folder)
        places = Places(
            root=folder,
            cuda_home=inputs.toolkit.root,
            torch=torch.root / "torch",
            shim=SHIM,
            ninja=Path(ninja.BIN_DIR) / "ninja",
        )
        objects = () if pack is None else tuple(read_pack(pack.archive, folder / "pack"))
        job = api_job(inputs, torch, places, objects=objects, jobs=sizing.max_jobs)
        env = job_environment(write_job(folder, job), build.profile, workspace.environ)
        env |= {"SOURCE_DATE_EPOCH": str(inputs.source.pin.epoch), "NVCC_THREADS": str(sizing.nvcc_threads)}
        done = run(
            [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", out],
            cwd=folder / "hopper",
            env=env,
            log=log,
            on_line=lambda line: workspace.reporter.output("front", line),
            on_heartbeat=lambda seconds: workspace.reporter.note(f"the front is at work since {seconds:.0f} s"),
        )
    if done.status != 0:
        raise CompileError(
            f"the torch front of {build} did not build", detail=[*done.tail, f"log: {log}"], hint=f"less {log}"
        )
    (wheel,) = out.glob("*.whl")
    return RawWheel(path=wheel)


def add_own_files(inputs: FrontInputs, folder: Path) -> None:
    """Put the recipe's Python and README, the licences and what is known of this build into a tree of `lay_out`."""
    build = inputs.build
    package = folder / "hopper" / build.recipe.package.package
    shutil.copytree(
        build.recipe.folder / "python" / package.name, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copyfile(build.recipe.folder / "README.md", folder / "README.md")
    for name, text in inputs.licences.items():
        write_atomic(folder / "hopper" / name, text)
    write_atomic(package / "_build.py", build_info(inputs).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where setup.py finds what it needs: on this machine, or in a container. `torch` is the unpacked package."""

    root: Path
    cuda_home: Path
    torch: Path
    shim: Path
    ninja: Path


def api_job(inputs: FrontInputs, torch: TorchKit, places: Places, *, objects: tuple[Path, ...], jobs: int) -> ApiJob:
    """Make the job that binds `objects`, or compiles everything where the build asks for that."""
    build = inputs.build
    return ApiJob(
        mode="inline" if build.kernels is Kernels.INLINE else "pack",
        root=places.root,
        cuda=str(inputs.toolkit.version.cuda),
        cuda_home=places.cuda_home,
        torch=places.torch,
        torch_release=torch.release,
        torch_cuda=str(inputs.torch.index_cuda),
        compiler=inputs.compiler.path,
        version=build.version,
        summary=build.recipe.package.summary,
        license=EXPRESSION,
        requires=requirements(build)[0],
        objects=objects,
        compile=compile_arguments(inputs.torch),
        link=link_arguments(
            build,
            toolkit=str(places.cuda_home),
            torch_lib=str(places.torch / "lib"),
            exports=str(places.shim / "exports.map"),
        ),
        jobs=jobs,
        shim=places.shim,
        ninja=places.ninja,
    )
