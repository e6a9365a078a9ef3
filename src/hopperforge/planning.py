"""From a request to a plan: which cells can be built, why the others cannot, and which builds serve them.

Pure functions over the project's facts and one Situation; nothing here looks at the machine, the disk or the clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from hopperforge.collapsing import collapse
from hopperforge.config.project import Project
from hopperforge.errors import InputError, NothingToBuildError
from hopperforge.model.cell import ANY_PLATFORM, AbiClass, Accepted, Cell, Default, Plan, Rejected, one_per_name
from hopperforge.model.matrix import Matrix, TorchFact
from hopperforge.model.place import StorePlace
from hopperforge.model.profile import Profile, compute_capability
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import Kernels, Request, ToolkitChoice
from hopperforge.model.toolkit import ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.pairing import join, pair, pair_reason, reason_of_facts

DEFAULT_RECIPE: Final = "fa3-fwd"
DEFAULT_EXECUTOR: Final = "local"

_SYSTEM: Final = "system"
_CACHED: Final = "cached"
FETCHED: Final = frozenset({"registry", "redist"})
"""What `toolkits_at_hand` says of a toolkit that is not on this machine yet."""
_ONE_WHEEL: Final = "one wheel serves every Python"


ON_HOST: Final = Default(value="host", reason="the word engine=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What planning must know of the machine.

    `toolkits_at_hand` says where each toolkit would come from: "system /usr/local/cuda", "cached", or to be fetched
    from "registry" or "redist"; `python` is the running Python; `platform` is written like "linux_x86_64"; `engine` is
    the one taken, and why; `store` is where machines share objects.
    """

    toolkits_at_hand: Mapping[ToolkitVersion, str]
    python: PythonVersion
    platform: str
    engine: Default = ON_HOST
    store: StorePlace | None = None


def why_host(request: Request, recipe: Recipe | None = None) -> str | None:
    """Say why a request, of this recipe, can be built on the host alone; None if containers will do."""
    if recipe is not None and not recipe.front.kind.compiled:
        return f"nothing of recipe {recipe.name} is compiled"
    if request.kernels is Kernels.INLINE:
        return "kernels=inline compiles on the host alone"
    if request.toolkit is ToolkitChoice.SYSTEM:
        return "toolkit=system is installed on this machine, where containers cannot see it"
    return None


def for_engine(request: Request, engine: str) -> Request:
    """Settle what an engine decides about a request.

    A toolkit installed on this machine may be spread over it and cannot be handed to a container: there, the choice
    `auto` leaves it out. InputError for a base where there is no container to stand on it.
    """
    if engine == ON_HOST.value:
        if request.base is not None:
            message = f"base={request.base} is for containers, and this would be built on the host"
            raise InputError(message, hint="nox -s doctor -- engine   # then engine=docker or engine=podman")
        return request
    if request.toolkit is ToolkitChoice.AUTO:
        return replace(request, toolkit=ToolkitChoice.FETCHED)
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
        builds=collapse(project.matrix, find_recipe(project, request), accepted, request.kernels),
        rejected=rejected,
        defaults=_defaults(project, request, situation),
        engine=situation.engine.value,
        executor=request.executor or DEFAULT_EXECUTOR,
        toolkit=request.toolkit,
        store=situation.store,
    )


def select(
    project: Project, request: Request, situation: Situation
) -> tuple[tuple[Accepted, ...], tuple[Rejected, ...]]:
    """Judge every candidate cell of a request; each is in exactly one of the two, in ascending order.

    Of toolkits whose packages would have the same name only one is accepted: see `one_per_name`.
    """
    judged = one_per_name(judge_each(project, request, situation), project.matrix.default_toolkit)
    accepted = tuple(verdict for verdict in judged if isinstance(verdict, Accepted))
    rejected = tuple(verdict for verdict in judged if isinstance(verdict, Rejected))
    return accepted, rejected


def judge_each(project: Project, request: Request, situation: Situation) -> list[Accepted | Rejected]:
    """Judge every candidate cell by itself."""
    recipe = find_recipe(project, request)
    at_hand = usable_toolkits(project.matrix, request.toolkit, situation)
    candidates = _candidates(project.matrix, recipe, request, situation)
    return [_judge(cell, project.matrix, recipe, at_hand, request.toolkit) for cell in candidates]


def usable_toolkits(matrix: Matrix, choice: ToolkitChoice, situation: Situation) -> Mapping[ToolkitVersion, str]:
    """Return the toolkits at hand that matrix.yaml knows and `choice` allows, and where each would come from.

    With toolkit=registry or redist, one that is installed too would be fetched all the same.
    """
    known = {version: where for version, where in situation.toolkits_at_hand.items() if version in matrix.toolkits}
    installed = {version for version, where in known.items() if where.startswith(_SYSTEM)}
    match choice:
        case ToolkitChoice.AUTO:
            return known
        case ToolkitChoice.FETCHED:
            return {version: where for version, where in known.items() if version not in installed}
        case ToolkitChoice.SYSTEM:
            return {version: known[version] for version in installed}
        case ToolkitChoice.REGISTRY | ToolkitChoice.REDIST:
            origin = ToolkitOrigin(choice.value)
            declared = {
                version: where for version, where in known.items() if origin in matrix.toolkits[version].origins
            }
            return {version: where if where == _CACHED else origin.value for version, where in declared.items()}
        case _:
            assert_never(choice)


def find_recipe(project: Project, request: Request) -> Recipe:
    """Return the recipe asked for, else the default one; InputError if there is none, or it lacks an asked profile."""
    name = request.recipe or DEFAULT_RECIPE
    if name not in project.recipes:
        have = ", ".join(project.recipes) or "none"
        raise InputError(f"there is no recipe {name}; recipes/ has {have}")
    recipe = project.recipes[name]
    for profile in request.profiles:
        if profile not in recipe.profiles:
            owners = [one.name for one in project.recipes.values() if profile in one.profiles]
            raise InputError(
                f"profile={profile}: recipe {name} has {', '.join(sorted(recipe.profiles))}",
                detail=[f"recipe={owner} has it" for owner in owners],
            )
    return recipe


# Candidates: the words given, the rest filled in.


def _candidates(matrix: Matrix, recipe: Recipe, request: Request, situation: Situation) -> tuple[Cell, ...]:
    profiles = request.profiles or (recipe.default_profile,)
    if not recipe.front.kind.compiled:
        return tuple(sorted(_uncompiled(recipe.name, profile) for profile in profiles))
    cells = {
        Cell(recipe=recipe.name, profile=profile, cuda=cuda, torch=torch, python=python, platform=situation.platform)
        for profile in profiles
        for cuda in request.cuda or (_default_cuda(matrix, request, situation),)
        for torch, python in _frameworks(matrix, recipe, cuda, request, situation)
    }
    if request.everything:
        # where nothing goes together the reasons are the answer
        cells = {c for c in cells if not reason_of_facts(c.cuda, c.torch, c.python, matrix, recipe)} or cells
    return tuple(sorted(cells))


def _uncompiled(recipe: str, profile: str) -> Cell:
    """The one cell of a profile of Python alone: every machine's."""
    return Cell(recipe=recipe, profile=profile, cuda=None, torch=None, python=None, platform=ANY_PLATFORM)


def _frameworks(
    matrix: Matrix, recipe: Recipe, cuda: ToolkitVersion, request: Request, situation: Situation
) -> list[tuple[TorchVersion, PythonVersion]] | list[tuple[None, None]]:
    """Each torch and Python a toolkit is asked for with; none of both where the front binds to no torch."""
    if not recipe.front.kind.binds_torch:
        return [(None, None)]
    return [
        (torch, python)
        for torch in request.torch or (_default_torch(matrix, recipe, cuda, request),)
        for python in request.python or (_default_python(matrix.torches[torch], situation),)
    ]


def _default_cuda(matrix: Matrix, request: Request, situation: Situation) -> ToolkitVersion:
    """Choose the matrix's default, else the newest toolkit present, that can be fetched, or there is."""
    at_hand = usable_toolkits(matrix, request.toolkit, situation)
    if matrix.default_toolkit is not None and matrix.default_toolkit in at_hand:
        return matrix.default_toolkit
    present = [version for version, where in at_hand.items() if where not in FETCHED]
    return max(present or at_hand or matrix.toolkits)


def _default_torch(matrix: Matrix, recipe: Recipe, cuda: ToolkitVersion, request: Request) -> TorchVersion:
    """Choose the newest torch that `cuda` serves with a Python asked for, else the newest there is."""
    served = [
        torch
        for torch, fact in matrix.torches.items()
        for python in request.python or fact.pythons
        if reason_of_facts(cuda, torch, python, matrix, recipe) is None
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
        "cuda": _why_cuda(matrix, cells[0].cuda, request, situation),
        "torch": Default(
            value=_spread(torches, "cuda"), reason=f"the newest torch that cuda {' and '.join(torches)} serves"
        ),
        "python": Default(value=_spread(pythons, "torch"), reason=_why_python(set(pythons.values()), situation)),
        "engine": situation.engine,
        "executor": Default(value=DEFAULT_EXECUTOR, reason="the default executor"),
    }
    kind = recipe.front.kind
    unasked = {"torch", "python"} if not kind.binds_torch else set()
    unasked |= {"cuda", "executor"} if not kind.compiled else set()
    return {word: every[word] for word in every if not given[word] and word not in unasked}


def _spread(values: Mapping[str, str], word: str) -> str:
    """Print one value where all agree, else each with the value of `word` it belongs to."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({word} {key})" for key, value in values.items())


def _why_cuda(matrix: Matrix, cuda: ToolkitVersion | None, request: Request, situation: Situation) -> Default:
    return Default(value=str(cuda), reason=_where_cuda(matrix, cuda, request, situation))


def _where_cuda(matrix: Matrix, cuda: ToolkitVersion | None, request: Request, situation: Situation) -> str:
    where = None if cuda is None else usable_toolkits(matrix, request.toolkit, situation).get(cuda)
    if where is not None and cuda == matrix.default_toolkit:
        return f"the default toolkit of matrix.yaml, {where}"
    match where:
        case None:
            return "the newest in matrix.yaml, as no toolkit is at hand"
        case "registry":
            return "the newest toolkit of the registry, as none is on this machine"
        case "redist":
            return "the newest toolkit of NVIDIA's archives, as no other is at hand"
        case _:
            return f"the newest toolkit on this machine: {where}"


def _why_python(pythons: set[str], situation: Situation) -> str:
    running = str(situation.python)
    if pythons == {running}:
        return f"the running Python: {_ONE_WHEEL}"
    return f"the newest Python of a torch that does not support the running {running}: {_ONE_WHEEL}"


# Judging one cell.


def _judge(
    cell: Cell, matrix: Matrix, recipe: Recipe, at_hand: Mapping[ToolkitVersion, str], choice: ToolkitChoice
) -> Accepted | Rejected:
    if cell.cuda is None:
        return Accepted(cell=cell, runtime=None, abi=AbiClass.NONE)
    reason = (
        _platform_reason(cell.platform, matrix)
        or _toolkit_reason(matrix.toolkits[cell.cuda], at_hand, choice)
        or reason_of_facts(cell.cuda, cell.torch, cell.python, matrix, recipe)
        or _architecture_reason(recipe.profiles[cell.profile], matrix.toolkits[cell.cuda])
    )
    accepted = pair(cell, matrix, recipe)
    if accepted is None and reason is None and cell.torch is not None:
        reason = pair_reason(cell.cuda.cuda, cell.torch, matrix, recipe.cudart)
    return accepted if accepted is not None and reason is None else Rejected(cell=cell, reason=str(reason))


def _architecture_reason(profile: Profile, fact: ToolkitFact) -> str | None:
    aged = sorted(name for name in profile.ptx if compute_capability(name) < fact.oldest)
    if aged:
        starts = f"the CUDA {fact.version} toolkit starts at sm_{fact.oldest}"
        return f"{starts}, and profile {profile.name} has PTX for {', '.join(aged)}"
    if profile.ptx or not profile.architectures or profile.for_toolkit(fact.oldest).architectures:
        return None
    names = ", ".join(sorted(profile.architectures))
    return f"the CUDA {fact.version} toolkit starts at sm_{fact.oldest}, and profile {profile.name} is for {names}"


def _platform_reason(platform: str, matrix: Matrix) -> str | None:
    built = sorted(name for name, reason in matrix.platforms.items() if reason is None)
    if platform in built:
        return None
    declared = matrix.platforms.get(platform)
    because = f": {declared}" if declared else ""
    return f"this machine is {platform}, and hopperforge builds for {', '.join(built)} only{because}"


def _toolkit_reason(fact: ToolkitFact, at_hand: Mapping[ToolkitVersion, str], choice: ToolkitChoice) -> str | None:
    if fact.version in at_hand:
        return None
    limit = "" if choice is ToolkitChoice.AUTO else f" with toolkit={choice}"
    origins = ", ".join(fact.origins)
    return f"the CUDA {fact.version} toolkit is not at hand{limit}; at hand: {join(at_hand)}; its origins: {origins}"


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
    verdicts = judge_each(project, everywhere, situation)
    buildable = [verdict.cell for verdict in verdicts if isinstance(verdict, Accepted)]
    return max(
        buildable,
        key=lambda cell: (-min(_changes(cell, other, request) for other in asked), cell),
        default=None,
    )


def _changes(cell: Cell, other: Cell, request: Request) -> int:
    python_changed = bool(request.python) and cell.python != other.python
    return (cell.cuda != other.cuda) + (cell.torch != other.torch) + python_changed


def _command(cell: Cell, request: Request) -> str:
    """Write the command that builds `cell`, with the words of the request that bear on what can be built."""
    words = [f"recipe={cell.recipe}", f"profile={cell.profile}"]
    if cell.cuda is not None:
        words.append(f"cuda={cell.cuda}")
    if cell.torch is not None:
        words.append(f"torch={cell.torch}")
    if request.python and cell.python is not None:
        words.append(f"python={cell.python}")
    if request.toolkit is not ToolkitChoice.AUTO:
        words.append(f"toolkit={request.toolkit}")
    if request.kernels is not Kernels.PACK:
        words.append(f"kernels={request.kernels}")
    return f"nox -s build -- {' '.join(words)}"
