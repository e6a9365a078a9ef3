"""The torch front in a builder image: cibuildwheel binds, repairs and tests the wheel in one container.

What is bound is what `front_torch` binds on the host, by the same patched setup.py and the same job file; only the
places differ. Kernels are not compiled here: they come as the objects of a pack.
"""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hopperforge.errors import CompileError, RepairError
from hopperforge.model.cell import Build
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import KernelPack
from hopperforge.model.wheel import RepairedWheel
from hopperforge.run.engine import ContainerEngine, Mount, memory_limit, mount_text
from hopperforge.run.files import make_folder, storage_guard, temporary_folder
from hopperforge.run.process import Completed, run
from hopperforge.run.workspace import Workspace
from hopperforge.setup_job import SHIM, job_environment, write_job
from hopperforge.stages.front_inputs import FrontInputs
from hopperforge.stages.front_torch import Places, add_own_files, api_job
from hopperforge.stages.image import CUDA_HOME
from hopperforge.stages.patch import lay_out
from hopperforge.stages.repair import EXCLUDED, finish
from hopperforge.stages.torch_kit import TorchKit
from hopperforge.store.packs import read_pack

_IDENTIFIER: Final = "cp39-manylinux"  # abi3 from 3.9 on: the one wheel for every Python
_SOURCE: Final = "/src"
_TORCH: Final = "/torch"
_JOB: Final = "/job"
_PROJECT: Final = Path("/project")  # where cibuildwheel puts the folder it is started in
_LABEL: Final = "hopperforge.front"


def bind_in_image(
    inputs: FrontInputs,
    pack: KernelPack,
    torch: TorchKit,
    *,
    engine: ContainerEngine,
    sizing: Sizing,
    sbom: bytes,
    out: Path,
    workspace: Workspace,
) -> RepairedWheel:
    """Make the repaired wheel in `out`, with `sbom` inside. CompileError or RepairError names the log.

    The container has no network, and whatever happens none is left.
    """
    build = inputs.build
    log = make_folder(workspace.logs / "front") / f"{build.recipe.name}-{build.version}-{engine.name}.log"
    made = make_folder(out / "cibuildwheel")
    with storage_guard(workspace.work), temporary_folder(make_folder(workspace.work), "front-") as folder:
        job = _lay_out(inputs, pack, torch, sizing, folder)
        mounts = (
            Mount(outside=inputs.source.root.resolve(), inside=_SOURCE),
            Mount(outside=torch.root.resolve(), inside=_TORCH),
            Mount(outside=job, inside=_JOB),
        )
        done = _cibuildwheel(inputs, engine, mounts, sizing=sizing, folder=folder / "tree", made=made, log=log)
    wheels = sorted(made.glob("*.whl"))
    if done.status != 0 or len(wheels) != 1:
        failure = RepairError if any("Repairing wheel" in line for line in done.tail) else CompileError
        raise failure(f"the torch front of {build} did not build in {engine.name}", detail=[*done.tail, f"log: {log}"])
    return finish(wheels[0], epoch=inputs.source.pin.epoch, sbom=sbom, work=out, workspace=workspace)


def _lay_out(inputs: FrontInputs, pack: KernelPack, torch: TorchKit, sizing: Sizing, folder: Path) -> Path:
    """Make `tree`, which is copied into the container, and `job`, which it only reads; returns the latter."""
    tree, job = make_folder(folder / "tree"), make_folder(folder / "job")
    lay_out(inputs.source, tree)
    (tree / "csrc").unlink()
    (tree / "csrc").symlink_to(f"{_SOURCE}/csrc")
    add_own_files(inputs, tree)
    shutil.copytree(SHIM, job / "shim", ignore=shutil.ignore_patterns("__pycache__"))
    objects = read_pack(pack.archive, job / "pack")
    inside = tuple(Path(_JOB) / path.relative_to(job) for path in objects)
    places = Places(
        root=_PROJECT,
        cuda_home=CUDA_HOME,
        torch=Path(_TORCH) / "torch",
        shim=Path(_JOB) / "shim",
        ninja=Path("/opt/hopperforge/bin/ninja"),
    )
    write_job(job, api_job(inputs, torch, places, objects=inside, jobs=sizing.max_jobs))
    return job


def _cibuildwheel(
    inputs: FrontInputs,
    engine: ContainerEngine,
    mounts: tuple[Mount, ...],
    *,
    sizing: Sizing,
    folder: Path,
    made: Path,
    log: Path,
) -> Completed:
    """Run cibuildwheel in `folder`; its container carries a label of this run alone, by which it is removed."""
    label = f"{_LABEL}={secrets.token_hex(8)}"
    create = (
        *("--rm", "--network=none", "--security-opt=no-new-privileges", f"--label={label}"),
        *memory_limit(sizing.memory),
        *(f"--mount={mount_text(mount)}" for mount in mounts),
    )
    try:
        return run(
            [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--output-dir", made, "hopper"],
            cwd=folder,
            env=_environment(inputs, engine, create),
            log=log,
            on_line=lambda line: engine.reporter.output("front", line),
        )
    finally:
        engine.client.remove(*engine.client.labelled(label))


def _environment(inputs: FrontInputs, engine: ContainerEngine, create: tuple[str, ...]) -> Mapping[str, str]:
    """Make cibuildwheel's environment: the client's, and settings that leave it nothing to find or fetch by itself."""
    build = inputs.build
    architecture = build.platform.removeprefix("linux_")
    inside = job_environment(Path(_JOB) / "job.json", build.profile, {}, shim=Path(_JOB) / "shim")
    del inside["PATH"]  # cibuildwheel's own
    inside |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels", "PIP_NO_DEPS": "1"}
    client = {key: value for key, value in engine.client.environ.items() if not key.startswith(("CIBW_", "PYTHON"))}
    return client | {
        "CIBW_BUILD": f"{_IDENTIFIER}_{architecture}",
        "CIBW_ARCHS": architecture,
        f"CIBW_MANYLINUX_{architecture.upper()}_IMAGE": engine.image,
        "CIBW_CONTAINER_ENGINE": f"{engine.name}; create_args: {shlex.join(create)}; disable_host_mount: true",
        "CIBW_BUILD_FRONTEND": "build; args: --no-isolation",
        "CIBW_BUILD_VERBOSITY": "1",
        "CIBW_DEPENDENCY_VERSIONS": "latest",
        "CIBW_AUDIT_COMMAND": "",
        "CIBW_ENVIRONMENT": " ".join(f"{key}={shlex.quote(value)}" for key, value in inside.items()),
        "CIBW_REPAIR_WHEEL_COMMAND": repair_command(build),
        "CIBW_TEST_COMMAND": shlex.join(import_test(build)),
        "PATH": engine.client.environ.get("PATH", os.defpath),
        "SOURCE_DATE_EPOCH": str(inputs.source.pin.epoch),
    }


def repair_command(build: Build) -> str:
    """Give the repair as cibuildwheel takes it, with its two placeholders."""
    excludes = shlex.join(f"--exclude={name}" for name in (*EXCLUDED, *sorted(build.needed)))
    return f"auditwheel repair --plat auto {excludes} --wheel-dir {{dest_dir}} {{wheel}}"


def import_test(build: Build) -> tuple[str, ...]:
    """Give the test of the finished wheel in the image: only the framework's libraries may be missing there."""
    return ("python", "/opt/hopperforge/import_test.py", build.recipe.package.package, *sorted(build.needed))
