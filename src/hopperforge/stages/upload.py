"""Publishing to an upload server: a flat index that others run, where a file once taken keeps its bytes.

Everything is looked at before anything is sent, so a refusal leaves the server as it was; and what was sent is read
back, for a server may keep something else than what it was given.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from hopperforge.errors import PublishError
from hopperforge.index.flat import Label, Machines, misfits
from hopperforge.index.proof import unproven_reasons
from hopperforge.run.upload_server import ServerAddress, UploadServer, open_server
from hopperforge.run.workspace import Workspace
from hopperforge.store.wheelhouse import Shelved


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """The packages that were sent (with `dry_run`: would be), and those the server had already with the same bytes."""

    sent: tuple[Shelved, ...]
    skipped: tuple[Shelved, ...]


def upload(
    packages: Sequence[Shelved],
    address: ServerAddress,
    machines: Machines | None,
    workspace: Workspace,
    *,
    dry_run: bool = False,
) -> Uploaded:
    """Publish packages to an upload server, those of `machines` if they are given.

    PublishError, with nothing sent, if a package is unproven (a server of others cannot show that it is), if pip would
    take a wrong file from an index that holds these together, or if the server has other bytes under one of the names;
    and for a server that does not answer, does not take a file, or keeps other bytes than were sent.
    """
    chosen = _chosen(packages, machines, workspace)
    _require_proof(chosen)
    _require_one_kind(chosen, machines)
    with open_server(address, workspace) as server:
        skipped = _already_there(chosen, server, machines)
        for package in skipped:
            workspace.reporter.note(f"skipped {package.path.name}: {server.simple} has it with the same bytes")
        sent = tuple(package for package in chosen if package not in skipped)
        for package in () if dry_run else sent:
            _send(package, server, workspace)
    return Uploaded(sent=sent, skipped=skipped)


def fits(package: Shelved, machines: Machines) -> bool:
    """Whether a package is for these machines: its label says so, and it serves their torch."""
    label = Label.of_file(package.path.name)
    torches = {cell.torch for cell in package.record.cells}  # None where it binds to none, and so serves any
    return label is not None and machines.take(label) and (None in torches or machines.torch in (None, *torches))


def _chosen(packages: Sequence[Shelved], machines: Machines | None, workspace: Workspace) -> tuple[Shelved, ...]:
    chosen = tuple(package for package in packages if machines is None or fits(package, machines))
    for package in packages:
        if package not in chosen:
            workspace.reporter.note(f"left out {package.path.name}: it is not for {machines}")
    if not chosen:
        raise PublishError(
            f"there is nothing to publish for {machines}" if machines else "there is nothing to publish",
            hint=f"ls {workspace.wheelhouse}",
        )
    return chosen


def _require_proof(packages: Iterable[Shelved]) -> None:
    lacks = {package.path.name: unproven_reasons(package.record) for package in packages}
    unproven = [f"{name}: {reason}" for name, reasons in lacks.items() for reason in reasons]
    if unproven:
        raise PublishError(
            "packages whose record lacks a proof are not sent to an upload server, which could not show it",
            detail=unproven,
            hint="nox -s verify and nox -s smoke prove a package; an index of our own can show one that is not",
        )


def _require_one_kind(packages: Sequence[Shelved], machines: Machines | None) -> None:
    wrong = [name for project in _by_project(packages).values() for name in misfits(_names(project), machines)]
    if wrong:
        raise PublishError(
            "these packages are for different machines, and from one index pip takes the highest on all of them",
            detail=wrong,
            hint="cuda=12.8 [torch=2.6] [profile=NAME]   # whom this index is for; and one index for each",
        )


def _already_there(packages: Sequence[Shelved], server: UploadServer, machines: Machines | None) -> tuple[Shelved, ...]:
    """Compare with what the server has; PublishError for other bytes, and for files of other machines."""
    same, other = [], []
    for project, members in _by_project(packages).items():
        links = server.files(project)
        _require_company(_names(members), links, server.simple, machines)
        for package in members:
            if package.path.name in links:
                found = server.sha256(links[package.path.name])
                if found == package.record.wheel.sha256:
                    same.append(package)
                else:
                    other += _two_hashes(package, found)
    if other:
        raise PublishError(
            f"{server.simple} has other bytes under a name to be published, and a published file never changes",
            detail=other,
            hint="publish a rebuild under another version, or remove the old file on the server",
        )
    return tuple(same)


def _require_company(names: Sequence[str], there: Collection[str], place: str, machines: Machines | None) -> None:
    """Refuse to lay files beside others of the server that are for other machines."""
    wheels = {name for name in there if name.endswith(".whl")}
    wrong = set(misfits({*names, *wheels}, machines)) - set(names)
    if wrong:
        raise PublishError(
            f"{place} already has packages for other machines, and from one index pip takes the highest version on all",
            detail=sorted(wrong),
            hint="use an index of its own for each cuda= (and torch=, and profile=), or say whom this one is for",
        )


def _send(package: Shelved, server: UploadServer, workspace: Workspace) -> None:
    name = package.path.name
    refusal: PublishError | None = None
    try:
        server.send(package.path)
    except PublishError as error:  # it may be there all the same: sent by another at this moment, or an answer got lost
        refusal = error
    link = server.files(canonicalize_name(package.record.name)).get(name)
    found = None if link is None else server.sha256(link)
    if found == package.record.wheel.sha256:
        workspace.reporter.note(f"sent {name} to {server.simple}" if refusal is None else f"{name} is there: {refusal}")
        return
    if refusal is not None and found is None:
        raise refusal
    if found is None:
        raise PublishError(f"the server took {name} but does not list it at {server.simple}")
    raise PublishError(
        f"{server.simple} holds other bytes than {name} has: remove that file on the server",
        detail=_two_hashes(package, found),
    )


def _two_hashes(package: Shelved, found: str) -> list[str]:
    return [f"{package.path.name}: here sha256 {package.record.wheel.sha256}", f"{' ' * 4}on the server sha256 {found}"]


def _names(packages: Iterable[Shelved]) -> list[str]:
    return [package.path.name for package in packages]


def _by_project(packages: Iterable[Shelved]) -> dict[str, list[Shelved]]:
    found: dict[str, list[Shelved]] = {}
    for package in packages:
        found.setdefault(canonicalize_name(package.record.name), []).append(package)
    return found
