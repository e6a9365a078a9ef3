"""Publishing to an upload server, which is what `publish` does where `to=` is an address of the web."""

from collections.abc import Mapping
from typing import Final

from hopperforge.errors import InputError
from hopperforge.index.flat import Machines
from hopperforge.model.versions import CudaVersion, TorchVersion
from hopperforge.run.upload_server import ServerAddress
from hopperforge.stages.parcels import from_wheelhouse, named, sort_out
from hopperforge.stages.upload import upload
from hopperforge.store.wheelhouse import Shelved
from hopperforge.verbs import Call

WORDS: Final = frozenset({"check", "cuda", "torch", "profile"})
"""The words that only an upload server has: its simple index, and the machines that it is for."""

_INDEX_WORDS: Final = frozenset({"from", "yank", "unyank", "reason"})
_EXAMPLE: Final = "nox -s publish -- to=https://host/team/cu128 cuda=12.8"


def is_server(place: str) -> bool:
    """Whether a place is an upload server: it is where an address of the web is."""
    return place.lower().startswith(("http://", "https://"))


def upload_packages(call: Call, words: Mapping[str, str]) -> None:
    """Publish what is proven in the wheelhouse to the upload server that `to=` names."""
    foreign = sorted(_INDEX_WORDS & words.keys())
    if foreign:
        raise InputError(
            f"{foreign[0]}= is for an index in a folder or a bucket, and {words['to']} is an upload server",
            hint="an upload server has a program of its own for this, as devpi's `devpi push` and `devpi remove`",
        )
    if call.allow_unproven:
        raise InputError(
            "--allow-unproven is for an index of our own, which says of a package that it is unproven",
            hint=_EXAMPLE,
        )
    address = ServerAddress.parse(words["to"], words.get("check"))
    machines = _machines(call, words)
    call.workspace.reporter.stage("publish", address.upload)
    packages, left_out = _proven(call, words)
    done = upload(packages, address, machines, call.workspace, dry_run=call.dry_run)
    sent = "would be published" if call.dry_run else "published"
    skipped = "there already, the same bytes: skipped"
    lines = [*(f"left out: {reason}" for reason in left_out), *(_line(package, sent) for package in done.sent)]
    call.answer("\n".join([*lines, *(f"{package.path.name}: {skipped}" for package in done.skipped)]))


def _line(package: Shelved, done: str) -> str:
    wheel = package.record.wheel
    return f"{wheel.file}: {done}: {wheel.size / 1e6:.2f} MB, sha256 {wheel.sha256}"


def _proven(call: Call, words: Mapping[str, str]) -> tuple[list[Shelved], list[str]]:
    """The packages that may be published, checked as for an index of our own, and why others may not."""
    project = call.project()
    packages = call.wheelhouse().packages()
    if "wheel" in words:
        packages = named(packages, words["wheel"].split(","))
    candidates = [from_wheelhouse(package, project, call.now()) for package in packages]
    parcels, left_out = sort_out(candidates, asked="wheel" in words, allow_unproven=False)
    files = {parcel.file for parcel in parcels}
    return [package for package in packages if package.path.name in files], left_out


def _machines(call: Call, words: Mapping[str, str]) -> Machines | None:
    """Read for whom the server's index is; None if no word says so."""
    if "cuda" not in words:
        given = sorted({"torch", "profile"} & words.keys())
        if given:
            raise InputError(f"{given[0]}= says for whom an upload index is together with cuda=", hint=_EXAMPLE)
        return None
    try:
        cuda = CudaVersion.parse(words["cuda"])
        torch = TorchVersion.parse(words["torch"]) if "torch" in words else None
    except ValueError as error:
        raise InputError(str(error), hint=_EXAMPLE) from error
    defaults = {recipe.default_profile for recipe in call.project().recipes.values()}
    profile = words.get("profile")
    return Machines(cuda=cuda, torch=torch, profile=None if profile in defaults else profile)
