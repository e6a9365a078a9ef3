"""Where a recipe's kernels come from: upstream's pin, fetched and patched, or the recipe itself."""

from hopperforge.model.cell import Build
from hopperforge.model.matrix import Matrix
from hopperforge.model.pack import Unit
from hopperforge.model.recipe import Recipe
from hopperforge.model.toolkit import ToolkitFact
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.run.workspace import Workspace
from hopperforge.stages.own_kernels import own_source, own_units
from hopperforge.stages.patch import list_units, patch_source
from hopperforge.stages.source import fetch_source


def kernel_source(recipe: Recipe, pin: UpstreamPin, workspace: Workspace) -> PatchedSource:
    """Fetch, verify and patch the source of a recipe's kernels, or take the recipe's own."""
    workspace.reporter.stage("source", pin.name)
    if recipe.kernels is not None:
        return own_source(recipe, pin, workspace)
    source = fetch_source(pin, workspace)
    workspace.reporter.stage("patch", f"patches/{pin.name}")
    return patch_source(source, workspace)


def kernel_units(
    source: PatchedSource, build: Build, fact: ToolkitFact, matrix: Matrix, workspace: Workspace
) -> tuple[Unit, ...]:
    """List a build's units, not merged.

    Without a torch they are those of the stable ABI's oldest: upstream's list does not depend on it, only its key does.
    """
    if build.recipe.kernels is not None:
        return own_units(build.recipe, source, build.profile, fact)
    release = matrix.torches[build.torch or matrix.stable_floor].release
    return list_units(source, build.profile, fact, release, workspace)
