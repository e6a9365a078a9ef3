"""Kernels that a recipe brings itself: its folder `kernels` as a source tree, and the units in it."""

import shutil
from pathlib import Path
from typing import Final

from hopperforge.errors import InputError
from hopperforge.model.keys import content_key
from hopperforge.model.pack import Unit
from hopperforge.model.profile import Profile, compute_capability
from hopperforge.model.recipe import Recipe
from hopperforge.model.toolkit import ToolkitFact
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.run.files import (
    Lock,
    remove_folder,
    replace_folder,
    sha256_file,
    storage_guard,
    sweep,
    temporary_folder,
)
from hopperforge.run.workspace import Workspace
from hopperforge.stages.patch import kernel_files, kernel_tree_hash
from hopperforge.unit_words import small

FOLDER: Final = "kernels"
_ORIGIN: Final = "the recipe"
_WORDS: Final = (
    *("-std=c++17", "-O3", f"-I{FOLDER}"),
    *("-Xcompiler", "-fPIC", "-Xcompiler", "-fvisibility=hidden"),
)


def own_source(recipe: Recipe, pin: UpstreamPin, workspace: Workspace) -> PatchedSource:
    """Copy the recipe's kernels and their headers to where compiles see nothing else, by the hash of their content."""
    files = _kernels(recipe.folder)
    if not files:
        raise InputError(f"recipe {recipe.name} says that it brings kernels, and has no folder {FOLDER}")
    key = content_key("own-kernels", files)
    final = workspace.patched / f"own-{key[:16]}"
    with Lock(workspace.patched / f"{final.name}.lock"), storage_guard(workspace.patched):
        if not final.is_dir() or _kernels(final) != files:  # a copy may have been damaged
            sweep(workspace.patched, final.name)
            with temporary_folder(workspace.patched, final.name) as folder:
                for path in files:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(recipe.folder / path, folder / path)
                remove_folder(final)
                replace_folder(folder, final)
    own = UpstreamPin(name=pin.name, commit="", epoch=pin.epoch, trees={FOLDER: key}, origins=())
    tree = kernel_tree_hash(final)  # as workers of a cluster hash what they are sent
    return PatchedSource(pin=own, root=final, origin=_ORIGIN, patches={}, kernel_tree=tree, front_tree=key)


def _kernels(root: Path) -> dict[str, str]:
    """Hash what compiles see below a folder."""
    names = [path for path in kernel_files(root) if path.startswith(f"{FOLDER}/")]
    return {path: sha256_file(root / path) for path in names}


def own_units(recipe: Recipe, source: PatchedSource, profile: Profile, fact: ToolkitFact) -> tuple[Unit, ...]:
    """List the units of the recipe's kernels for what `profile` wants and the toolkit knows."""
    kernels = recipe.kernels
    paths = [] if kernels is None else sorted(path for path in source.root.glob(kernels.units) if path.is_file())
    if kernels is None or not paths:
        raise InputError(f"recipe {recipe.name}: no file of {FOLDER}/ is a unit", hint="look at `kernels: own:`")
    switches = tuple(f"-DHOPPERFORGE_{switch}" for switch in sorted(profile.switches))
    words = (*_WORDS, *switches, *gencodes(profile), *kernels.flags)
    units = (
        Unit(path=path.relative_to(source.root).as_posix(), arguments=words, sees=source.kernel_tree) for path in paths
    )
    return tuple(sorted(small(unit, fact.compress) for unit in units))


def gencodes(profile: Profile) -> tuple[str, ...]:
    """Write nvcc's targets: machine code for every architecture, and PTX, in ascending order."""
    machine = sorted(profile.architectures, key=lambda name: (compute_capability(name), name))
    ptx = sorted(profile.ptx, key=lambda name: (compute_capability(name), name))
    targets = [
        *(f"arch=compute_{name.removeprefix('sm_')},code={name}" for name in machine),
        *(f"arch={name},code={name}" for name in ptx),
    ]
    return tuple(word for target in targets for word in ("-gencode", target))
