"""From a request to a plan: which cells can be built, why the others cannot, and which builds serve them.

Pure functions over the project's facts and one Situation; nothing here looks at the machine, the disk or the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, assert_never

from hopperforge.config.project import Project
from hopperforge.errors import InputError, NothingToBuildError
from hopperforge.model.cell import AbiClass, Accepted, Build, Cell, Default, Plan, Rejected
from hopperforge.model.matrix import Exclusion, Matrix, TorchFact
from hopperforge.model.recipe import Cudart, Recipe
from hopperforge.model.request import Kernels, Request, ToolkitChoice
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion

DEFAULT_RECIPE: Final = "fa3-fwd"
DEFAULT_EXECUTOR: Final = "local"
BUILDABLE_PLATFORMS: Final = frozenset({"linux_x86_64"})

_SYSTEM: Final = "system"
_REGISTRY: Final = "registry"
_ONE_WHEEL: Final = "one wheel serves every Python, this one runs the import gate"


ON_HOST: Final = Default(value="host", reason="the word engine=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What planning must know of the machine.

    `toolkits_at_hand` says where each toolkit would come from ("system /usr/local/cuda", "cached", "registry");
    `python` is the running Python; `platform` is written like "linux_x86_64"; `engine` is the one taken, and why.
    """

    toolkits_at_hand: Mapping[CudaVersion, str]
    python: PythonVersion
    platform: str
    engine: Default = ON_HOST


def for_engine(request: Request, engine: str) -> Request:
    """Settle what an engine decides about a request.

    A toolkit installed on this machine may be spread over it and cannot be handed to a container: there, the choice
    `auto` leaves it out, and `system` is an InputError.
    """
    if engine == ON_HOST.value:
        return request
    match request.toolkit:
        case ToolkitChoice.SYSTEM:
            message = f"toolkit=system is installed on this machine, and engine={engine} cannot see it"
            raise InputError(message, hint="leave toolkit= out, or take engine=host")
        case ToolkitChoice.AUTO:
            return replace(request, toolkit=ToolkitChoice.REGISTRY)
        case ToolkitChoice.REGISTRY:
            return request


def make_plan(project: Project, request: Request, situation: Situation) -> Plan:
    """Decide everything a request comes to.

    Neither the order of words nor that of their values matters. Raises NothingToBuildError, with every reason
    and the nearest cell that can be built, if no candidate is accepted.
    """
    accepted, rejected = select(project, request, situation)
    if not accepted:
        raise _nothing_to_build(project, request, situation, rejected)
    return Plan(
        builds=_builds(project.matrix, find_recipe(project, request), accepted, request.kernels),
        rejected=rejected,
        defaults=_defaults(project, request, situation),
        engine=situation.engine.value,
        executor=request.executor or DEFAULT_EXECUTOR,
        toolkit=request.toolkit,
    )


def select(
    project: Project, request: Request, situation: Situation
) -> tuple[tuple[Accepted, ...], tuple[Rejected, ...]]:
    """Judge every candidate cell of a request; each is in exactly one of the two, in ascending order."""
    recipe = find_recipe(project, request)
    at_hand = usable_toolkits(project.matrix, request.toolkit, situation)
    candidates = _candidates(project.matrix, recipe, request, situation)
    verdicts = [_judge(cell, project.matrix, recipe, at_hand, request.toolkit) for cell in candidates]
    accepted = tuple(verdict for verdict in verdicts if isinstance(verdict, Accepted))
    rejected = tuple(verdict for verdict in verdicts if isinstance(verdict, Rejected))
    return accepted, rejected


def pair_runtime(toolkit: CudaVersion, torch: TorchFact, cudart: Cudart) -> CudaVersion | None:
    """Choose the CUDA runtime of torch that code of `toolkit` runs beside; None if there is none.

    | cudart | a runtime of torch qualifies when                                                        |
    |--------|------------------------------------------------------------------------------------------|
    | static | its major >= the toolkit's: the code brings its own runtime, so the minor does not matter |
    | shared | its major is the toolkit's and its minor >= the toolkit's                                 |

    Of those that qualify, the one of the package index's build is taken, else the lowest.
    """
    match cudart:
        case Cudart.STATIC:
            fitting = [runtime for runtime in _runtimes(torch) if runtime.major >= toolkit.major]
        case Cudart.SHARED:
            fitting = [runtime for runtime in _runtimes(torch) if runtime.major == toolkit.major and runtime >= toolkit]
        case _:
            assert_never(cudart)
    if torch.index_cuda in fitting:
        return torch.index_cuda
    return fitting[0] if fitting else None


def usable_toolkits(matrix: Matrix, choice: ToolkitChoice, situation: Situation) -> Mapping[CudaVersion, str]:
    """Return the toolkits at hand that matrix.yaml knows and `choice` allows, and where each would come from.

    With toolkit=registry, one that is installed too would be fetched all the same.
    """
    known = {version: where for version, where in situation.toolkits_at_hand.items() if version in matrix.toolkits}
    installed = {version for version, where in known.items() if where.startswith(_SYSTEM)}
    match choice:
        case ToolkitChoice.AUTO:
            return known
        case ToolkitChoice.SYSTEM:
            return {version: known[version] for version in installed}
        case ToolkitChoice.REGISTRY:
            fetched = {v for v in known if v not in installed or ToolkitOrigin.REGISTRY in matrix.toolkits[v].origins}
            return {version: _REGISTRY if version in installed else known[version] for version in fetched}


def find_recipe(project: Project, request: Request) -> Recipe:
    """Return the recipe asked for, else the default one; InputError if the project has none of that name."""
    name = request.recipe or DEFAULT_RECIPE
    if name not in project.recipes:
        have = ", ".join(project.recipes) or "none"
        raise InputError(f"there is no recipe {name}; recipes/ has {have}")
    return project.recipes[name]


# Candidates: the words given, the rest filled in.


def _candidates(matrix: Matrix, recipe: Recipe, request: Request, situation: Situation) -> tuple[Cell, ...]:
    cells = {
        Cell(recipe=recipe.name, profile=profile, cuda=cuda, torch=torch, python=python, platform=situation.platform)
        for profile in request.profiles or (recipe.default_profile,)
        for cuda in request.cuda or (_default_cuda(matrix, request, situation),)
        for torch in request.torch or (_default_torch(matrix, recipe, cuda, request),)
        for python in request.python or (_default_python(matrix.torches[torch], situation),)
    }
    return tuple(sorted(cells))


def _default_cuda(matrix: Matrix, request: Request, situation: Situation) -> CudaVersion:
    """Choose the newest toolkit present, else the newest that can be fetched, else the newest there is."""
    at_hand = usable_toolkits(matrix, request.toolkit, situation)
    present = [version for version, where in at_hand.items() if where != _REGISTRY]
    return max(present or at_hand or matrix.toolkits)


def _default_torch(matrix: Matrix, recipe: Recipe, cuda: CudaVersion, request: Request) -> TorchVersion:
    """Choose the newest torch that `cuda` serves with a Python asked for, else the newest there is."""
    served = [
        torch
        for torch, fact in matrix.torches.items()
        for python in request.python or fact.pythons
        if _reason_of_facts(cuda, torch, python, matrix, recipe) is None
    ]
    return max(served or matrix.torches)


def _default_python(torch: TorchFact, situation: Situation) -> PythonVersion:
    return situation.python if situation.python in torch.pythons else max(torch.pythons)


def _defaults(project: Project, request: Request, situation: Situation) -> Mapping[str, Default]:
    """Explain each word that was not given, in the order of the words."""
    matrix, recipe = project.matrix, find_recipe(project, request)
    cells = _candidates(matrix, recipe, request, situation)
    torches = {str(cell.cuda): str(cell.torch) for cell in cells}
    pythons = {str(cell.torch): str(cell.python) for cell in cells}
    given: Mapping[str, object] = {
        "recipe": request.recipe,
        "profile": request.profiles,
        "cuda": request.cuda,
        "torch": request.torch,
        "python": request.python,
        "engine": request.engine,
        "executor": request.executor,
    }
    every = {
        "recipe": Default(value=recipe.name, reason="the default recipe"),
        "profile": Default(value=recipe.default_profile, reason=f"the default profile of {recipe.name}"),
        "cuda": Default(value=str(cells[0].cuda), reason=_why_cuda(matrix, cells[0].cuda, request, situation)),
        "torch": Default(
            value=_spread(torches, "cuda"), reason=f"the newest torch that cuda {' and '.join(torches)} serves"
        ),
        "python": Default(value=_spread(pythons, "torch"), reason=_why_python(set(pythons.values()), situation)),
        "engine": situation.engine,
        "executor": Default(value=DEFAULT_EXECUTOR, reason="the default executor"),
    }
    return {word: default for word, default in every.items() if not given[word]}


def _spread(values: Mapping[str, str], word: str) -> str:
    """Print one value where all agree, else each with the value of `word` it belongs to."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({word} {key})" for key, value in values.items())


def _why_cuda(matrix: Matrix, cuda: CudaVersion, request: Request, situation: Situation) -> str:
    where = usable_toolkits(matrix, request.toolkit, situation).get(cuda)
    match where:
        case None:
            return "the newest in matrix.yaml, as no toolkit is at hand"
        case "registry":
            return "the newest toolkit of the registry, as none is on this machine"
        case _:
            return f"the newest toolkit on this machine: {where}"


def _why_python(pythons: set[str], situation: Situation) -> str:
    running = str(situation.python)
    if pythons == {running}:
        return f"the running Python: {_ONE_WHEEL}"
    return f"the newest Python of a torch that does not support the running {running}: {_ONE_WHEEL}"


# Judging one cell.


def _judge(
    cell: Cell, matrix: Matrix, recipe: Recipe, at_hand: Mapping[CudaVersion, str], choice: ToolkitChoice
) -> Accepted | Rejected:
    reason = (
        _platform_reason(cell.platform)
        or _toolkit_reason(cell.cuda, at_hand, choice)
        or _reason_of_facts(cell.cuda, cell.torch, cell.python, matrix, recipe)
    )
    runtime = pair_runtime(cell.cuda, matrix.torches[cell.torch], recipe.cudart)
    if reason is not None or runtime is None:
        return Rejected(cell=cell, reason=reason or _pair_reason(cell.cuda, matrix.torches[cell.torch], recipe.cudart))
    return Accepted(cell=cell, runtime=runtime, abi=AbiClass.STABLE)


def _reason_of_facts(
    cuda: CudaVersion, torch: TorchVersion, python: PythonVersion, matrix: Matrix, recipe: Recipe
) -> str | None:
    """Say why these versions do not go together on any machine, or None."""
    fact = matrix.torches[torch]
    if torch < matrix.stable_floor:
        return (
            f"torch {torch} is older than {matrix.stable_floor}, the first with the stable ABI; it needs a build of "
            "its own per torch, which this version of hopperforge does not make"
        )
    if python not in fact.pythons:
        return f"torch {torch} was not published for Python {python}, only for {_join(fact.pythons)}"
    if (excluded := _exclusion_reason((cuda, torch, python), matrix.exclusions)) is not None:
        return excluded
    if pair_runtime(cuda, fact, recipe.cudart) is None:
        return _pair_reason(cuda, fact, recipe.cudart)
    return None


def _platform_reason(platform: str) -> str | None:
    if platform in BUILDABLE_PLATFORMS:
        return None
    return f"this machine is {platform}, and hopperforge builds for {', '.join(sorted(BUILDABLE_PLATFORMS))} only"


def _toolkit_reason(cuda: CudaVersion, at_hand: Mapping[CudaVersion, str], choice: ToolkitChoice) -> str | None:
    if cuda in at_hand:
        return None
    limit = "" if choice is ToolkitChoice.AUTO else f" with toolkit={choice}"
    return f"the CUDA {cuda} toolkit is not at hand{limit}; at hand: {_join(at_hand)}"


def _exclusion_reason(
    versions: tuple[CudaVersion, TorchVersion, PythonVersion], exclusions: Iterable[Exclusion]
) -> str | None:
    for exclusion in exclusions:
        wanted = (exclusion.cuda, exclusion.torch, exclusion.python)
        if all(want in (None, have) for want, have in zip(wanted, versions, strict=True)):
            return exclusion.reason
    return None


def _pair_reason(cuda: CudaVersion, torch: TorchFact, cudart: Cudart) -> str:
    match cudart:
        case Cudart.STATIC:
            need = f"CUDA {cuda.major}.0 or newer"
        case Cudart.SHARED:
            need = f"CUDA {cuda} to {cuda.major}.x (the runtime is shared)"
        case _:
            assert_never(cudart)
    return f"code of the CUDA {cuda} toolkit needs {need}, and torch {torch.version} runs on {_join(_runtimes(torch))}"


def _runtimes(torch: TorchFact) -> tuple[CudaVersion, ...]:
    return tuple(sorted({torch.index_cuda, *torch.cuda}))


def _join(versions: Iterable[CudaVersion | PythonVersion]) -> str:
    return ", ".join(str(version) for version in versions) or "none"


# From accepted cells to builds.


def _builds(matrix: Matrix, recipe: Recipe, accepted: Sequence[Accepted], kernels: Kernels) -> tuple[Build, ...]:
    """Collapse cells with equal bytes: with the stable ABI torch and Python do not change them."""
    groups = groupby(accepted, key=lambda found: (found.cell.profile, found.cell.cuda, found.cell.platform))
    return tuple(
        Build(
            recipe=recipe,
            profile=recipe.profiles[profile],
            cuda=cuda,
            torch=matrix.stable_floor,
            abi=AbiClass.STABLE,
            platform=platform,
            kernels=kernels,
            cells=tuple(cells),
        )
        for (profile, cuda, platform), cells in groups
    )


# When nothing was accepted.


def _nothing_to_build(
    project: Project, request: Request, situation: Situation, rejected: Sequence[Rejected]
) -> NothingToBuildError:
    reasons = tuple(dict.fromkeys(verdict.reason for verdict in rejected))
    nearest = _nearest(project, request, situation, [verdict.cell for verdict in rejected])
    sentence = f"nothing to build: no candidate cell can be built, of {len(rejected)} asked for"
    if nearest is None:
        return NothingToBuildError(sentence, detail=(*reasons, "no other cell of the matrix can be built here either"))
    return NothingToBuildError(
        sentence, detail=(*reasons, f"the nearest cell that can be built: {nearest}"), hint=_command(nearest, request)
    )


def _nearest(project: Project, request: Request, situation: Situation, asked: Sequence[Cell]) -> Cell | None:
    """Find the cell that changes the fewest versions of one asked for; of equals the newest.

    A Python that was not asked for does not count as changed. The profile never keeps a cell from being built.
    """
    everywhere = replace(
        request,
        profiles=(asked[0].profile,),
        cuda=tuple(project.matrix.toolkits),
        torch=tuple(project.matrix.torches),
        python=project.matrix.pythons if request.python else (),
    )
    buildable = [found.cell for found in select(project, everywhere, situation)[0]]
    return max(
        buildable,
        key=lambda cell: (-min(_changes(cell, other, request) for other in asked), cell.cuda, cell.torch, cell.python),
        default=None,
    )


def _changes(cell: Cell, other: Cell, request: Request) -> int:
    python_changed = bool(request.python) and cell.python != other.python
    return (cell.cuda != other.cuda) + (cell.torch != other.torch) + python_changed


def _command(cell: Cell, request: Request) -> str:
    """Write the command that builds `cell`, with the words of the request that bear on what can be built."""
    words = [f"recipe={cell.recipe}", f"profile={cell.profile}", f"cuda={cell.cuda}", f"torch={cell.torch}"]
    if request.python:
        words.append(f"python={cell.python}")
    if request.toolkit is not ToolkitChoice.AUTO:
        words.append(f"toolkit={request.toolkit}")
    if request.kernels is not Kernels.PACK:
        words.append(f"kernels={request.kernels}")
    return f"nox -s build -- {' '.join(words)}"
