"""The verb bundle: everything that nodes without a network need, in one tar."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from hopperforge.config.project import Project
from hopperforge.config.request import parse_keyed
from hopperforge.errors import InputError, NothingToBuildError, PublishError
from hopperforge.index.bundle import BundleCell
from hopperforge.index.catalog import Entry
from hopperforge.index.constraints import profiles_for, wheels_for
from hopperforge.index.entries import make_entry
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion
from hopperforge.planning import DEFAULT_RECIPE
from hopperforge.stages.attest import check_signed, read_keys
from hopperforge.stages.bundle import make_bundle
from hopperforge.stages.framework import Target
from hopperforge.stages.parcels import Candidate, from_wheelhouse
from hopperforge.stages.publish import Parcel
from hopperforge.verbs import Call

_WORDS: Final = frozenset({"recipe", "profile", "cuda", "torch", "python", "glibc", "with", "to", "key"})
_EXAMPLE: Final = "nox -s bundle -- cuda=12.8 torch=2.9"
_GLIBC: Final = (2, 28)
_Version = TypeVar("_Version")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the words ask for; `profile` None is the recipe's default, `target` None leaves torch out."""

    recipe: str
    profile: str | None
    cuda: CudaVersion
    torch: TorchVersion
    python: PythonVersion | None
    target: Target | None


def bundle(call: Call) -> None:
    """Write the tar of one cell, from proven packages of the wheelhouse."""
    project = call.project()
    words = parse_keyed(call.words, _WORDS)
    wanted = _wanted(words, project)
    _warn_of_another_cuda(call, wanted, project)
    candidates = _candidates(call, project, wanted.recipe)
    chosen = _choose(list(candidates), wanted)
    parcels = _proven([candidates[entry] for entry in chosen], allow_unproven=call.allow_unproven)
    if "key" in words:
        _check_signatures(call, parcels, words["key"])
    cell = BundleCell(
        project=chosen[0].project,
        cuda=wanted.cuda,
        torch=wanted.torch,
        profile=chosen[0].profile,
        python=wanted.python if wanted.target else None,
    )
    final = Path(words["to"]).absolute() if "to" in words else call.workspace.project / "bundles" / f"{cell.name}.tar"
    call.workspace.reporter.stage("bundle", str(cell))
    made = make_bundle(cell, parcels, final, call.workspace, target=wanted.target, signed="key" in words)
    size = made.path.stat().st_size / 1e6
    call.answer(f"{made.path}: {size:.1f} MB, sha256 {made.sha256}")
    if "key" in words:
        call.answer("signed as asked; it installs with a public key alone: KEY=NAME.public.pem ./install.sh")
    call.answer("\n".join(f"  {wheel.path}: {wheel.size / 1e6:.2f} MB" for wheel in made.wheels))


def _check_signatures(call: Call, parcels: Sequence[Parcel], places: str) -> None:
    """Refuse what none of the keys has signed; TrustError says of the first wheel why it is not bundled."""
    keys, now = read_keys(places), datetime.fromisoformat(call.now())
    for parcel in parcels:
        check_signed(call.workspace.wheelhouse / parcel.file, keys, now=now)


def _wanted(words: Mapping[str, str], project: Project) -> _Wanted:
    """Read the words; InputError for the first that is wrong."""
    recipe = words.get("recipe", DEFAULT_RECIPE)
    if recipe not in project.recipes:
        raise InputError(f"recipe={recipe}: there is {', '.join(project.recipes)}", hint=_EXAMPLE)
    if not project.recipes[recipe].front.kind.binds_torch:
        raise InputError(
            f"recipe={recipe}: its package goes with any torch or none, and requires nothing of a bundle",
            hint="copy the wheel and the record beside it; pip install --no-deps WHEEL",
        )
    cuda, torch = _read(words, "cuda", CudaVersion.parse), _read(words, "torch", TorchVersion.parse)
    if cuda is None or torch is None:
        raise InputError("a bundle is for one CUDA and one torch: cuda= and torch= are needed", hint=_EXAMPLE)
    if words.get("with", "torch") != "torch":
        raise InputError(f"with={words['with']}: there is with=torch", hint=f"{_EXAMPLE} python=3.12 with=torch")
    python = _read(words, "python", PythonVersion.parse)
    if ("with" in words) != (python is not None):
        raise InputError(
            "python= and with=torch go together: torch has a wheel for each Python, ours serves all",
            hint=f"{_EXAMPLE} python=3.12 with=torch",
        )
    glibc = _read(words, "glibc", _parse_glibc) or _GLIBC
    # the first patch release: what is chosen for it serves the later ones
    target = None if python is None else Target(release=f"{python}.0", glibc=glibc, machine="x86_64")
    profile = words.get("profile")
    return _Wanted(recipe=recipe, profile=profile, cuda=cuda, torch=torch, python=python, target=target)


def _read(words: Mapping[str, str], key: str, parse: Callable[[str], _Version]) -> _Version | None:
    if key not in words:
        return None
    try:
        return parse(words[key])
    except ValueError as error:
        raise InputError(f"{key}=: {error}", hint=_EXAMPLE) from error


def _parse_glibc(text: str) -> tuple[int, int]:
    version = CudaVersion.parse(text)  # two numbers as well
    return version.major, version.minor


def _warn_of_another_cuda(call: Call, wanted: _Wanted, project: Project) -> None:
    """Say that torch will be of another CUDA, where pip is not set up for an index that has this one."""
    fact = project.matrix.torches.get(wanted.torch)
    if wanted.target is not None and fact is not None and fact.index_cuda != wanted.cuda:
        call.workspace.reporter.warn(
            f"the package index's torch {wanted.torch} is of CUDA {fact.index_cuda}, not {wanted.cuda}: that is what "
            "is bundled unless pip's settings name an index of torch for that CUDA"
        )


def _candidates(call: Call, project: Project, recipe: str) -> dict[Entry, Candidate]:
    """Check the recipe's packages; what is not what its record says is warned of and left out."""
    found = {}
    for package in call.wheelhouse().packages():
        if package.record.recipe != recipe:
            continue
        candidate = from_wheelhouse(package, project, package.record.created)
        for reason in candidate.wrong:
            call.workspace.reporter.warn(f"{candidate.file}: {reason}")
        if candidate.parcel is not None:
            parcel = candidate.parcel
            found[make_entry(parcel.record, parcel.metadata, parcel.publication)] = candidate
    return found


def _choose(entries: Sequence[Entry], wanted: _Wanted) -> Sequence[Entry]:
    chosen = wheels_for(entries, wanted.cuda, wanted.torch, wanted.profile)
    if chosen:
        return chosen
    others = profiles_for(entries, wanted.cuda, wanted.torch)
    profile = "the default profile" if wanted.profile is None else f"profile {wanted.profile}"
    raise NothingToBuildError(
        f"the wheelhouse has nothing of {profile} for torch {wanted.torch} of CUDA {wanted.cuda}",
        detail=[_said(entry) for entry in entries] or ["it has no package of this recipe"],
        hint=f"profile={others[0]}" if others else f"nox -s build -- recipe={wanted.recipe} torch={wanted.torch}",
    )


def _said(entry: Entry) -> str:
    torches = ", ".join(dict.fromkeys(str(cell.torch) for cell in entry.cells))
    return f"{entry.file}: profile {entry.profile}, compiled for CUDA {entry.toolkit}, serves torch {torches}"


def _proven(candidates: Sequence[Candidate], *, allow_unproven: bool) -> list[Parcel]:
    reasons = [f"{found.file}: {reason}" for found in candidates for reason in found.unproven]
    if reasons and not allow_unproven:
        raise PublishError(
            "nothing was bundled, for not every package is proven",
            detail=reasons,
            hint="--allow-unproven bundles it all the same, and the catalog in the bundle says so",
        )
    return [found.parcel for found in candidates if found.parcel is not None]
