"""The support table: for every point of the matrix, whether a wheel was built and proven, and what stands against it.

Made from the matrix, this machine's situation and the records of a wheelhouse; pure. A point that was never built is
shown as never built.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Any, TypeVar

from packaging.version import Version

from hopperforge.collapsing import collapse
from hopperforge.config.project import Project
from hopperforge.model.cell import ANY_PLATFORM, Accepted, Build, Cell, Rejected
from hopperforge.model.keys import JsonValue
from hopperforge.model.record import Record
from hopperforge.model.request import Request
from hopperforge.model.versions import PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import ImportProof
from hopperforge.pairing import pair, reason_of_facts
from hopperforge.planning import FETCHED, Situation, find_recipe, judge_each

_V = TypeVar("_V", TorchVersion, PythonVersion, ToolkitVersion)


class State(StrEnum):
    """How far a point of the matrix is.

    | state    | a wheel of its version is in the wheelhouse | and its record has, for this torch                |
    |----------|---------------------------------------------|---------------------------------------------------|
    | PROVEN   | yes                                         | a passed import gate, or smoke tests passed on a GPU |
    | BUILT    | yes                                         | neither                                           |
    | HERE     | no; this machine can build it               |                                                   |
    | DECLARED | no; the facts allow it, this machine cannot |                                                   |
    """

    PROVEN = "built and proven"
    BUILT = "built"
    HERE = "buildable here"
    DECLARED = "declared, never built"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A toolkit and a torch on a platform: the wheel that serves them, its Pythons, and how far it is.

    `cuda` is None where nothing is compiled; `torch` is, and `pythons` empty, where it binds to no framework. `proofs`
    are clauses; `reason` says why this machine cannot build it, None where it can; `origin` is then where the toolkit
    is ("system /usr/local/cuda", "cached") or would be fetched from ("registry", "redist").
    """

    profile: str
    cuda: ToolkitVersion | None
    torch: TorchVersion | None
    platform: str
    pythons: tuple[PythonVersion, ...]
    version: str
    state: State
    proofs: tuple[str, ...]
    reason: str | None
    origin: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A toolkit and a torch that do not go together on any machine, and why."""

    cuda: ToolkitVersion
    torch: TorchVersion
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The whole table of one recipe; rows by profile, platform, toolkit and torch.

    `declared` are platforms that nothing is built for, and why: they have no rows.
    """

    recipe: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    declared: Mapping[str, str]


def make_support(project: Project, request: Request, situation: Situation, records: Sequence[Record]) -> Support:
    """Judge every point that `request` names; it names every cuda, torch and python it wants.

    A profile not asked for is shown if it is the recipe's default or was built.
    """
    recipe = find_recipe(project, request)
    own = [record for record in records if record.recipe == recipe.name]
    built = {record.profile for record in own} & recipe.profiles.keys()
    profiles = request.profiles or tuple(sorted({recipe.default_profile, *built}))
    asked = replace(request, profiles=profiles)
    declared = {name: reason for name, reason in project.matrix.platforms.items() if reason is not None}
    built_for = [name for name in project.matrix.platforms if name not in declared]
    if not recipe.front.kind.compiled:
        declared, built_for = {}, [ANY_PLATFORM]
    rows = [row for platform in built_for for row in _platform_rows(project, asked, situation, platform, own)]
    return Support(
        recipe=recipe.name,
        rows=tuple(sorted(rows, key=lambda row: (row.profile, row.platform, row.cuda, row.torch))),
        gaps=_gaps(project, request),
        declared=declared,
    )


def _platform_rows(
    project: Project, request: Request, situation: Situation, platform: str, records: Sequence[Record]
) -> list[Row]:
    recipe = find_recipe(project, request)
    # each by itself: of two toolkits whose packages have one name, either can be built
    verdicts = judge_each(project, request, replace(situation, platform=platform))
    accepted = [verdict for verdict in verdicts if isinstance(verdict, Accepted)]
    against = {verdict.cell: verdict.reason for verdict in verdicts if isinstance(verdict, Rejected)}
    possible = [*accepted, *(found for cell in against if (found := _possible(cell, project, request)) is not None)]
    if platform not in (situation.platform, ANY_PLATFORM):
        against |= {found.cell: f"this machine is {situation.platform}" for found in accepted}
    rows = []
    for build in collapse(project.matrix, recipe, possible, request.kernels):
        served = [record for record in records if _is_of(record, build)]
        for torch, cells in groupby(build.cells, key=lambda found: found.cell.torch):
            row = _row(build, torch, [found.cell for found in cells], served, against)
            origin = None if build.cuda is None else situation.toolkits_at_hand.get(build.cuda)
            rows.append(row if row.reason else replace(row, origin=origin))
    return rows


def _possible(cell: Cell, project: Project, request: Request) -> Accepted | None:
    recipe = find_recipe(project, request)
    if reason_of_facts(cell.cuda, cell.torch, cell.python, project.matrix, recipe) is not None:
        return None
    return pair(cell, project.matrix, recipe)


def _is_of(record: Record, build: Build) -> bool:
    cuda = None if record.toolkit is None else record.toolkit.version
    same = (record.profile, record.version, cuda) == (build.profile.name, build.version, build.cuda)
    return same and build.platform in {cell.platform for cell in record.cells}


def _row(
    build: Build,
    torch: TorchVersion | None,
    cells: Sequence[Cell],
    records: Sequence[Record],
    against: Mapping[Cell, str],
) -> Row:
    proofs = tuple(_proofs(records, torch))
    reasons = [against[cell] for cell in cells if cell in against]
    if proofs:
        state = State.PROVEN
    elif records:
        state = State.BUILT
    else:
        state = State.DECLARED if len(reasons) == len(cells) else State.HERE
    return Row(
        profile=build.profile.name,
        cuda=build.cuda,
        torch=torch,
        platform=build.platform,
        pythons=tuple(cell.python for cell in cells if cell.python is not None),
        version=build.version,
        state=state,
        proofs=proofs,
        reason=reasons[0] if len(reasons) == len(cells) else None,
        origin=None,
    )


def _proofs(records: Sequence[Record], torch: TorchVersion | None) -> Iterable[str]:
    """Say what records prove for one torch: the Pythons it was imported in, and each GPU; without one, each GPU."""
    passed = [ImportProof.parse(gate.name) for record in records for gate in record.gates if gate.passed]
    pythons = sorted({proof.python for proof in passed if proof is not None and proof.torch == torch})
    if pythons:
        yield f"imports in python {', '.join(map(str, pythons))}"
    for record in records:
        gpu: Mapping[str, Any] = record.gpu or {}
        whole = gpu.get("passed") and gpu.get("failed") == 0
        of_torch = torch is None or Version(gpu.get("torch", "0")).release[:2] == (torch.major, torch.minor)
        if whole and of_torch:
            yield f"{gpu['passed']} smoke tests on {gpu['gpu']}"


def _gaps(project: Project, request: Request) -> tuple[Gap, ...]:
    """List the pairs of toolkit and torch that go together with no Python, each with the reason that weighs most."""
    recipe, gaps = find_recipe(project, request), []
    if not recipe.front.kind.binds_torch:
        return ()
    for cuda in request.cuda:
        for torch in request.torch:
            # a torch's own Pythons first: with them something other than Python stands in the way
            pythons = sorted(request.python, key=lambda python: python not in project.matrix.torches[torch].pythons)
            reasons = [reason_of_facts(cuda, torch, python, project.matrix, recipe) for python in pythons]
            if all(reasons):
                gaps.append(Gap(cuda=cuda, torch=torch, reason=str(reasons[0])))
    return tuple(gaps)


# As people and programs read it.

_ANY = "any"
COLUMNS = ("profile", "cuda", "torch", "python", "platform", "wheel", "state")


def text_rows(support: Support) -> list[tuple[str, ...]]:
    """Write the rows as cells of text under COLUMNS; neighbours that differ in torch alone share a row."""
    torches = sorted({row.torch for row in support.rows if row.torch} | {gap.torch for gap in support.gaps})
    pythons = sorted({python for row in support.rows for python in row.pythons})
    lines: list[tuple[str, ...]] = []
    for shared, group in groupby(support.rows, key=lambda row: replace(row, torch=TorchVersion(0, 0), version="")):
        rows = list(group)
        versions = list(dict.fromkeys(row.version for row in rows))
        more = f" and {len(versions) - 1} more" if len(versions) > 1 else ""
        torch = runs([row.torch for row in rows if row.torch], torches) or _ANY
        python = runs(shared.pythons, pythons) or _ANY
        wheel = versions[0] + more
        lines.append(
            (shared.profile, str(shared.cuda or _ANY), torch, python, shared.platform, wheel, _state_text(shared))
        )
    return lines


def _state_text(row: Row) -> str:
    match row.state:
        case State.PROVEN:
            return f"{row.state}: {', '.join(row.proofs)}"
        case State.HERE if row.origin in FETCHED:
            return f"{row.state} if its toolkit can be fetched: {row.origin}"
        case State.HERE if row.origin is not None:
            return f"{row.state}, toolkit: {row.origin}"
        case _:
            return row.state


def text_reasons(support: Support) -> list[str]:
    """Say, each reason once, why this machine cannot build what it cannot, and why gaps are gaps."""
    here = dict.fromkeys(row.reason for row in support.rows if row.reason and row.state is State.DECLARED)
    gaps: dict[tuple[TorchVersion, str], list[str]] = {}
    for gap in support.gaps:
        # one line for all toolkits that fail alike
        alike = gap.reason.replace(f"the CUDA {gap.cuda} toolkit", "these toolkits")
        gaps.setdefault((gap.torch, alike), []).append(str(gap.cuda))
    apart = [f"torch {torch} with cuda {', '.join(cudas)}: {why}" for (torch, why), cudas in gaps.items()]
    declared = [f"{name}: {reason}" for name, reason in support.declared.items()]
    return [
        *_listed("cannot be built here", here),
        *_listed("do not go together", apart),
        *_listed("declared, never built", declared),
    ]


def _listed(title: str, reasons: Iterable[str | None]) -> list[str]:
    lines = [f"  {reason}" for reason in reasons]
    return ["", title, *lines] if lines else []


def runs(versions: Collection[_V], within: Iterable[_V]) -> str:
    """Write versions as people say them: the first and the last of those that follow each other in `within`."""
    groups = groupby(within, key=lambda version: version in versions)
    kept = [list(group) for inside, group in groups if inside]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} - {run[-1]}" for run in kept)


def support_document(support: Support) -> dict[str, JsonValue]:
    """Render the table for `--json`; versions are strings, `reason` is null where this machine can build the row.

    - recipe
    - rows: a list of {profile, cuda, torch, platform, pythons, version, state, proofs, reason, origin}
    - gaps: a list of {cuda, torch, reason}
    - declared: by platform that nothing is built for, the reason
    """
    return {
        "recipe": support.recipe,
        "rows": [_row_document(row) for row in support.rows],
        "gaps": [{"cuda": str(gap.cuda), "torch": str(gap.torch), "reason": gap.reason} for gap in support.gaps],
        "declared": dict(support.declared),
    }


def _row_document(row: Row) -> dict[str, JsonValue]:
    return {
        "profile": row.profile,
        "cuda": None if row.cuda is None else str(row.cuda),
        "torch": None if row.torch is None else str(row.torch),
        "platform": row.platform,
        "pythons": [str(python) for python in row.pythons],
        "version": row.version,
        "state": row.state.value,
        "proofs": list(row.proofs),
        "reason": row.reason,
        "origin": row.origin,
    }
