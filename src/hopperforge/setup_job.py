"""Job files for upstream's patched setup.py: what hopperforge asks of it, in the words of `setup_shim`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import ninja

from hopperforge.model.profile import Profile
from hopperforge.run.files import sha256_file, write_atomic

SHIM: Final = Path(__file__).parent / "setup_shim"


def shim_hashes() -> dict[str, str]:
    """Hash every file of the shim, by its path in it: they shape unit lists and packages alike."""
    files = (path for path in SHIM.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(SHIM).as_posix(): sha256_file(path) for path in sorted(files)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiJob:
    """One run of setup.py; the fields are those of `hopperforge_setup.Job`."""

    mode: Literal["units", "pack", "inline"]
    root: Path
    cuda: str
    torch_release: str
    torch_cuda: str = ""
    torch: Path = Path("/nonexistent")
    cuda_home: Path = Path("/nonexistent")
    compiler: Path = Path("/nonexistent")
    version: str = "0"
    summary: str = ""
    license: str = "BSD-3-Clause"
    requires: str = "torch"
    objects: tuple[Path, ...] = ()
    compile: tuple[str, ...] = ()
    shim: Path = SHIM
    ninja: Path = Path(ninja.BIN_DIR) / "ninja"
    link: tuple[str, ...] = ()
    units: Path = Path("/nonexistent")
    jobs: int = 1


def write_job(folder: Path, job: ApiJob) -> Path:
    """Write the job file into `folder`."""
    fields = {name: getattr(job, name) for name in job.__dataclass_fields__}
    fields["include"] = (job.shim / "include",)
    path = folder / "job.json"
    write_atomic(path, json.dumps(fields, default=_plain, indent=1).encode())
    return path


def _plain(value: object) -> str:
    return str(value)


def job_environment(
    job_file: Path, profile: Profile, environ: Mapping[str, str], *, shim: Path = SHIM
) -> dict[str, str]:
    """Make the whole environment of setup.py: upstream's switches, our job, and nothing of the user's but PATH.

    `job_file` and `shim` are where setup.py finds them.
    """
    return {
        "PATH": environ.get("PATH", ""),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOPPERFORGE_JOB": str(job_file),
        "HOPPERFORGE_SHIM": str(shim),
        **{f"FLASH_ATTENTION_{switch}": "TRUE" for switch in sorted(profile.switches)},
    }
