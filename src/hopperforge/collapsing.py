"""From accepted cells to builds: cells that get the same bytes share one. Pure."""

from collections.abc import Iterable

from hopperforge.model.cell import Accepted, Build
from hopperforge.model.matrix import Matrix
from hopperforge.model.profile import Profile
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion, TorchVersion


def collapse(matrix: Matrix, recipe: Recipe, accepted: Iterable[Accepted], kernels: Kernels) -> tuple[Build, ...]:
    """Collapse cells with equal bytes; the builds ascend.

    Python never changes the bytes. Torch does not either from the stable floor on: all are bound against the floor;
    below it each torch is bound against its own. A profile comes with the architectures that the toolkit knows.
    """
    groups: dict[tuple[str, ToolkitVersion | None, TorchVersion | None, str], list[Accepted]] = {}
    for found in sorted(accepted, key=lambda found: found.cell):
        cell = found.cell
        bound = None if cell.torch is None else min(cell.torch, matrix.stable_floor)
        groups.setdefault((cell.profile, cell.cuda, bound, cell.platform), []).append(found)
    return tuple(
        Build(
            recipe=recipe,
            profile=_for_toolkit(recipe.profiles[profile], matrix, cuda),
            cuda=cuda,
            torch=bound,
            abi=cells[0].abi,
            platform=platform,
            kernels=kernels,
            cells=tuple(cells),
        )
        for (profile, cuda, bound, platform), cells in sorted(groups.items(), key=lambda item: item[0])
    )


def _for_toolkit(profile: Profile, matrix: Matrix, cuda: ToolkitVersion | None) -> Profile:
    return profile if cuda is None else profile.for_toolkit(matrix.toolkits[cuda].oldest)
