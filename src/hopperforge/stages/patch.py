"""The patch stage: upstream's verified files with our patch series applied, and what setup.py says of its units."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.keys import canonical_json, content_key
from hopperforge.model.pack import Unit
from hopperforge.model.profile import Profile
from hopperforge.model.toolkit import ToolkitFact
from hopperforge.model.upstream import PatchedSource, VerifiedSource
from hopperforge.model.versions import CudaVersion
from hopperforge.run.files import (
    Lock,
    make_folder,
    remove_folder,
    replace_folder,
    sha256_file,
    storage_guard,
    sweep,
    temporary_folder,
    write_atomic,
)
from hopperforge.run.process import Completed, run
from hopperforge.run.workspace import Workspace
from hopperforge.setup_job import ApiJob, job_environment, shim_hashes, write_job
from hopperforge.stages import unit_view
from hopperforge.stages.unit_view import SourceView
from hopperforge.unit_words import small

_KERNEL_SUFFIXES: Final = frozenset({".cu", ".cuh", ".h", ".hpp", ".inl"})


def find_patches(project: Path, pin: str) -> tuple[Path, ...]:
    """List the pin's series in the order it is applied."""
    return tuple(sorted((project / "patches" / pin).glob("*.patch")))


def patch_source(source: VerifiedSource, workspace: Workspace) -> PatchedSource:
    """Apply the series to a copy of `source`, kept by the hash of both.

    Raises SourceError naming the patch and the hunk if one does not apply exactly where it says.
    """
    patches = find_patches(workspace.project, source.pin.name)
    hashes = {patch.name: sha256_file(patch) for patch in patches}
    key = content_key("patched", {"trees": dict(source.pin.trees), "patches": hashes})
    final = workspace.patched / key[:16]
    wait = partial(workspace.reporter.note, "waiting for another run that patches the same source")
    with Lock(workspace.patched / f"{key[:16]}.lock", on_wait=wait), storage_guard(workspace.patched):
        manifest = _read_manifest(final)
        if manifest is None or manifest != _tree_hashes(final / "tree"):
            manifest = _apply_series(source, patches, final, workspace)
    return PatchedSource(
        pin=source.pin,
        root=final / "tree",
        origin=source.origin,
        patches=hashes,
        kernel_tree=manifest["kernel_tree"],
        front_tree=manifest["front_tree"],
    )


def _apply_series(
    source: VerifiedSource, patches: tuple[Path, ...], final: Path, workspace: Workspace
) -> Mapping[str, str]:
    sweep(workspace.patched, final.name)
    with temporary_folder(workspace.patched, final.name) as folder:
        tree = folder / "tree"
        shutil.copytree(source.root, tree)
        for patch in patches:
            _apply(patch, tree, source.pin.name, workspace)
        manifest = _tree_hashes(tree)
        write_atomic(folder / "manifest.json", canonical_json(manifest))
        # Whatever stands at the final place was found damaged: it must go, or the good copy would be dropped.
        remove_folder(final)
        replace_folder(folder, final)
    return manifest


def _apply(patch: Path, tree: Path, pin: str, workspace: Workspace) -> None:
    # A checkout around the cache must not change what git takes for the root of the patched files.
    env = {
        "PATH": workspace.environ.get("PATH", ""),
        "GIT_CEILING_DIRECTORIES": str(tree.parent),
        "LC_ALL": "C",
    }
    argv: list[str | Path] = ["git", "apply", "-p1", "--verbose", "--whitespace=nowarn", patch]
    try:
        done = run(argv, cwd=tree, env=env)
    except ToolError as error:
        raise ToolError("git is needed to apply patches", hint="apt-get install git") from error
    drift = [line.strip() for line in done.tail if "error:" in line or "(offset" in line]
    if done.status != 0 or drift:
        raise SourceError(
            f"patch {patch.name} does not apply to {pin}: the source has drifted",
            detail=[*(drift or done.tail), f"patch: {patch}"],
            hint=f"refresh the hunk in {patch.relative_to(workspace.project)}",
        )


def _tree_hashes(tree: Path) -> dict[str, str]:
    files = {str(path.relative_to(tree)): sha256_file(path) for path in _files(tree)}
    kernel = {path: digest for path, digest in files.items() if _is_kernel(path)}
    front = {path: digest for path, digest in files.items() if Path(path).suffix != ".cu"}
    return {"kernel_tree": content_key("tree", kernel), "front_tree": content_key("tree", front)}


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file())


def _is_kernel(path: str) -> bool:
    return Path(path).suffix in _KERNEL_SUFFIXES or "csrc" in path


def kernel_files(tree: Path) -> list[str]:
    """List the files of a patched tree that a unit can include, by their paths in it."""
    return [path for path in (str(found.relative_to(tree)) for found in _files(tree)) if _is_kernel(path)]


def kernel_tree_hash(tree: Path) -> str:
    """Give the `kernel_tree` of a folder, which may hold the files of `kernel_files` alone."""
    return content_key("tree", {path: sha256_file(tree / path) for path in kernel_files(tree)})


def _read_manifest(final: Path) -> Mapping[str, str] | None:
    """Read the hashes of a patched tree; None if it is not there, or torn."""
    try:
        manifest = json.loads((final / "manifest.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def list_units(
    source: PatchedSource, profile: Profile, toolkit: ToolkitFact, torch_release: str, workspace: Workspace
) -> tuple[Unit, ...]:
    """Ask the patched setup.py which units `profile` has and with which arguments nvcc compiles each.

    Where we choose other words than upstream does is in `unit_words`.
    Of the profile's switches a unit comes with those that change it: see `unit_view`. `torch_release` decides which API
    file upstream takes, not the units. The answer is kept: it depends on the patched files and the switches alone.
    """
    cuda = toolkit.version.cuda
    key = content_key(
        "units",
        {
            "source": source.front_tree,
            "kernels": source.kernel_tree,
            "switches": sorted(profile.switches),
            "cuda": str(cuda),
            "torch": torch_release,
            "shim": shim_hashes(),
            "view": sha256_file(Path(unit_view.__file__)),
        },
    )
    kept = workspace.cache / "units" / f"{key[:16]}.json"
    units = _read_units(kept)
    if units is None:
        view = SourceView(source.root)
        asked = _ask_setup(source, profile, cuda, torch_release, workspace)
        settled = (view.settle(Unit(path=unit["path"], arguments=tuple(unit["arguments"]))) for unit in asked)
        answer = [{"path": unit.path, "arguments": unit.arguments, "sees": unit.sees} for unit in settled]
        write_atomic(kept, canonical_json({"units": answer, "sha256": content_key("unit-list", {"units": answer})}))
        units = answer
    listed = (Unit(**{**unit, "arguments": tuple(unit["arguments"])}) for unit in units)
    return tuple(sorted(small(unit, toolkit.compress) for unit in listed))


def _read_units(kept: Path) -> list[dict[str, Any]] | None:
    """Read a unit list from the cache; None if it is not there, torn, or not what was written."""
    try:
        found = json.loads(kept.read_bytes())
        units: list[dict[str, Any]] = found["units"]
        sound = found["sha256"] == content_key("unit-list", {"units": units})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return units if sound else None


def _ask_setup(
    source: PatchedSource, profile: Profile, cuda: CudaVersion, torch_release: str, workspace: Workspace
) -> list[dict[str, Any]]:
    log = make_folder(workspace.logs) / f"units-{profile.name}.log"
    with temporary_folder(make_folder(workspace.work), "units-") as folder:
        lay_out(source, folder)
        answer = folder / "units.json"
        job = ApiJob(mode="units", root=folder, cuda=str(cuda), torch_release=torch_release, units=answer)
        done = _run_setup(folder, write_job(folder, job), profile, log, workspace)
        if done.status != 0 or not answer.is_file():
            raise SourceError(
                f"upstream's setup.py did not list its units for profile {profile.name}",
                detail=[*done.tail, f"log: {log}"],
                hint=f"less {log}",
            )
        units: list[dict[str, Any]] = json.loads(answer.read_bytes())["units"]
        return units


def lay_out(source: PatchedSource, folder: Path) -> None:
    """Make `folder` a place where setup.py can run and write: its own copy of hopper/, CUTLASS by link."""
    shutil.copytree(source.root / "hopper", folder / "hopper")
    (folder / "csrc").symlink_to(source.root / "csrc")
    # setup.py reads its long description from here; upstream's own is no part of the trees we use.
    (folder / "README.md").write_text("", encoding="utf-8")


def _run_setup(folder: Path, job_file: Path, profile: Profile, log: Path, workspace: Workspace) -> Completed:
    env = job_environment(job_file, profile, workspace.environ)
    argv: list[str | Path] = [sys.executable, "setup.py", "build_ext"]
    argv += ["--build-temp", folder / "temp", "--build-lib", folder / "lib"]
    return run(argv, cwd=folder / "hopper", env=env, log=log)
