"""The facts of a checkout, read and checked together: matrix.yaml, every recipe, upstream.yaml, bases.yaml."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.config.checks import check_bases, check_matrix, check_upstream
from hopperforge.config.checks_recipe import check_lenders, check_recipe
from hopperforge.config.convert import to_images, to_matrix, to_pin, to_recipes
from hopperforge.config.files import BasesFile, MatrixFile
from hopperforge.config.files_recipe import RecipeFile
from hopperforge.config.files_upstream import UpstreamFile
from hopperforge.config.problems import Problem
from hopperforge.config.shape import Shape, check_shape
from hopperforge.config.tree import Tree, parse_tree
from hopperforge.errors import InputError
from hopperforge.model.image import ImageFacts
from hopperforge.model.matrix import Matrix
from hopperforge.model.recipe import Recipe
from hopperforge.model.upstream import UpstreamPin

MATRIX: Final = "matrix.yaml"
UPSTREAM: Final = "flash-attention/upstream.yaml"
IMAGES: Final = "image/bases.yaml"
RECIPES: Final = "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Everything the checkout declares: recipes and pins by name, `switches` upstream's names without prefix.

    `images` is None in a checkout without image/bases.yaml, which then builds on the host alone.
    """

    matrix: Matrix
    recipes: Mapping[str, Recipe]
    pins: Mapping[str, UpstreamPin]
    switches: frozenset[str]
    images: ImageFacts | None = None

    def pin_of(self, recipe: Recipe) -> UpstreamPin:
        """The pin of a recipe's kernels; where it brings them itself or has none, one of that name with nothing."""
        epoch = recipe.front.epoch if recipe.kernels is None else recipe.kernels.epoch
        if epoch is not None:
            return UpstreamPin(name=f"recipes-{recipe.name}", commit="", epoch=epoch, trees={}, origins=())
        return self.pins[str(recipe.pin)]


def load_project(root: Path) -> Project:
    """Read the facts under `root`; InputError lists every problem of every file, by file and line."""
    problems: list[Problem] = []
    upstream_tree, upstream = _read(root, UPSTREAM, UpstreamFile, check_upstream, problems)
    _, matrix = _read(root, MATRIX, MatrixFile, check_matrix, problems)
    recipes = _read_recipes(root, upstream_tree, problems)
    images = _read(root, IMAGES, BasesFile, check_bases, problems)[1] if (root / IMAGES).exists() else None
    if problems or matrix is None or upstream is None:
        raise _refusal(problems)
    return Project(
        matrix=to_matrix(matrix),
        recipes=to_recipes(recipes),
        pins={name: to_pin(name, pin) for name, pin in upstream.pins.items()},
        switches=frozenset(upstream.switches),
        images=None if images is None else to_images(images),
    )


def _read(
    root: Path,
    file: str,
    model: type[Shape],
    check: Callable[[str, Tree], list[Problem]],
    problems: list[Problem],
) -> tuple[Tree | None, Shape | None]:
    """The file as a tree and as its shape, either None where it cannot be; problems are added."""
    try:
        content = (root / file).read_bytes()
    except OSError as error:
        problems.append(Problem(file, 1, 1, f"cannot be read: {error.strerror}"))
        return None, None
    tree, found = parse_tree(file, content)
    problems += found
    if tree is None:
        return None, None
    shape, found = check_shape(file, tree, model)
    problems += found
    malformed = {(problem.line, problem.column) for problem in found}
    problems += [problem for problem in check(file, tree) if (problem.line, problem.column) not in malformed]
    return tree, shape


def _read_recipes(root: Path, upstream: Tree | None, problems: list[Problem]) -> dict[Path, RecipeFile]:
    """Every recipe that has its shape, by folder; problems are added."""
    pins = {name for name, _ in upstream.items("pins")} if upstream else set()
    switches = {name for name, _ in upstream.items("switches")} if upstream else set()
    check = functools.partial(check_recipe, pins=pins, switches=switches)
    recipes: dict[Path, RecipeFile] = {}
    trees: dict[str, Tree] = {}
    paths = sorted((root / RECIPES).glob("*/recipe.yaml"))
    if not paths:
        problems.append(Problem(RECIPES, 1, 1, "no folder here holds a recipe.yaml"))
    for path in paths:
        file = path.relative_to(root).as_posix()
        tree, shape = _read(root, file, RecipeFile, check, problems)
        if shape is not None:
            recipes[path.parent] = shape
        if tree is not None:
            trees[file] = tree
    problems += check_lenders(trees)
    return recipes


def _refusal(problems: Sequence[Problem]) -> InputError:
    """One error for all problems; two checks that say the same are said once."""
    distinct = sorted(set(problems))
    files = sorted({problem.file for problem in distinct})
    count = "1 problem" if len(distinct) == 1 else f"{len(distinct)} problems"
    return InputError(f"{count} in {', '.join(files)}", detail=[str(problem) for problem in distinct])
