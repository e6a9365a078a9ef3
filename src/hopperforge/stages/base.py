"""The base stage: what a builder image stands on, from Debian's packages or from a container registry.

A base is known by its content. What was found behind a name the first time is in image/bases.lock.json, and anything
else under the same name is refused afterwards.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.image import SYSTEM_PATH, Base, DebianBase, RegistryBase, debian_base_id, digest_of, layers_of
from hopperforge.model.keys import canonical_json, content_key
from hopperforge.run.engine import Client
from hopperforge.run.files import Lock, make_folder, sha256_file, storage_guard, temporary_folder, write_atomic
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace
from hopperforge.stages.fingerprint import fingerprint

LOCK: Final = "image/bases.lock.json"

_BOOTSTRAP: Final = "mmdebstrap"
_INSTALL_BOOTSTRAP: Final = "apt-get install -y --no-install-recommends mmdebstrap"

# Of the root file system whatever differs between two runs or two machines, and none of which compiles anything.
_FORGET: Final = (
    'find "$1/usr/lib" -name __pycache__ -prune -exec rm -r {} +',
    'rm -f "$1/etc/apt/sources.list" "$1/etc/resolv.conf" "$1/etc/hostname"',
    'find "$1/var/log" "$1/var/cache" "$1/var/lib/apt" -type f -delete',
)
_LIST: Final = """dpkg-query --admindir="$1/var/lib/dpkg" --showformat='${Package}=${Version}\\n' --show"""
# apt drops root where its folders allow it, and leaves folders of another owner there.
_ALWAYS_ROOT: Final = """--aptopt=APT::Sandbox::User "root";"""
_EPOCH: Final = "1700000000"  # of files mmdebstrap makes itself; any will do if it is always the same
_TARGETS: Final = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"


def obtain_base(fact: DebianBase | RegistryBase, client: Client, workspace: Workspace) -> Base:
    """Give a base that the engine has under its tag, made or pulled if it is not there.

    ToolError if it cannot be had, SourceError if it is not what the lock file says.
    """
    match fact:
        case DebianBase():
            return _debian(fact, client, workspace)
        case RegistryBase():
            return _pulled(fact, client, workspace)


def find_base(fact: DebianBase | RegistryBase, client: Client, workspace: Workspace) -> Base | None:
    """Give a base that was made or pulled before; makes and pulls nothing."""
    match fact:
        case DebianBase():
            known = _known(_archive(fact, workspace), workspace.cache)
            return None if known is None else _named(fact, debian_base_id(known["packages"], known["sha256"]))
        case RegistryBase():
            locked = _read_lock(workspace.project / LOCK).get(fact.name)
            if locked is None or client.inspect(f"{fact.image}@{locked}") is None:
                return None
            return _named(fact, locked.removeprefix("sha256:"))


def what_a_base_lacks(fact: DebianBase | RegistryBase, workspace: Workspace) -> str | None:
    """Say what keeps a base from being had on this machine, as far as a look can tell; None if nothing does."""
    match fact:
        case DebianBase() if (
            not _archive(fact, workspace).is_file()
            and shutil.which(_BOOTSTRAP, path=workspace.environ.get("PATH", os.defpath)) is None
        ):
            return f"base {fact.name} is made by {_BOOTSTRAP}, which is missing: {_INSTALL_BOOTSTRAP}"
        case _:
            return None


def _named(fact: DebianBase | RegistryBase, base_id: str) -> Base:
    search = fact.search if isinstance(fact, RegistryBase) else SYSTEM_PATH
    return Base(name=fact.name, id=base_id, tag=f"hopperforge-base:{base_id[:16]}", floor=fact.floor, search=search)


# From Debian's packages.


def _archive(fact: DebianBase, workspace: Workspace) -> Path:
    key = content_key("base", {"suite": fact.suite, "packages": sorted(fact.packages)})
    return workspace.cache / "bases" / f"{fact.name}-{key[:16]}.tar"


def _debian(fact: DebianBase, client: Client, workspace: Workspace) -> Base:
    archive = _archive(fact, workspace)
    wait = partial(workspace.reporter.note, f"waiting for another run that makes base {fact.name}")
    with Lock(archive.with_suffix(".lock"), on_wait=wait):
        known = _known(archive, workspace.cache)
        if known is None:
            _bootstrap(fact, archive, workspace)
            known = _known(archive, workspace.cache)
        if known is None:
            raise SourceError(f"{archive} changed while it was written", hint=f"rm {archive}")
        if not fact.moves:
            identity = content_key("packages", {"packages": sorted(known["packages"])})
            check_lock(workspace.project / LOCK, fact.name, identity, workspace)
        base = _named(fact, debian_base_id(known["packages"], known["sha256"]))
        if layers_of(client.inspect(base.tag) or {}) != (f"sha256:{known['sha256']}",):
            workspace.reporter.note(f"importing {archive.name} into {client.program}")
            client.do("import", archive, base.tag, what=f"import of {archive.name}")
    return base


def _known(archive: Path, cache: Path) -> dict[str, Any] | None:
    """Read what was written down of an archive; None if it is not there, or is another one now."""
    try:
        known: dict[str, Any] = json.loads(archive.with_suffix(".json").read_bytes())
        return known if known["sha256"] == fingerprint({"it": archive}, {}, cache)["it"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _bootstrap(fact: DebianBase, archive: Path, workspace: Workspace) -> None:
    """Make the root file system and write down its packages and its hash; nothing is left of a run that fails."""
    make_folder(workspace.logs)
    log = workspace.logs / f"base-{fact.name}.log"
    sources = debian_sources(_targets(workspace), fact.suite)
    workspace.reporter.note(f"making base {fact.name} of Debian's packages; log: {log}")
    with storage_guard(archive.parent), temporary_folder(archive.parent, archive.name) as folder:
        made = folder / "root.tar"
        listed = folder / "packages"
        hooks = [f"--customize-hook={hook}" for hook in (*_FORGET, f"{_LIST} > {listed}")]
        include = f"--include={','.join(fact.packages)}"
        argv: list[str | Path] = [
            _BOOTSTRAP,
            "--variant=minbase",
            _ALWAYS_ROOT,
            include,
            *hooks,
            fact.suite,
            made,
            *sources,
        ]
        environ = {key: value for key, value in workspace.environ.items() if key != "TMPDIR"}
        try:
            done = run(argv, cwd=folder, env={**environ, "SOURCE_DATE_EPOCH": _EPOCH, "TMPDIR": str(folder)}, log=log)
        except ToolError as error:
            raise ToolError(f"{_BOOTSTRAP} is needed to make a base", hint=_INSTALL_BOOTSTRAP) from error
        if done.status != 0:
            raise ToolError(
                f"base {fact.name} cannot be made of Debian's packages (mmdebstrap ended with status {done.status})",
                detail=[*done.tail[-10:], f"log: {log}"],
                hint="apt-get update   # do this machine's own apt sources answer?",
            )
        known = {"packages": listed.read_text(encoding="ascii").split(), "sha256": sha256_file(made)}
        made.replace(archive)
        write_atomic(archive.with_suffix(".json"), canonical_json(known))


def _targets(workspace: Workspace) -> list[str]:
    """List what this machine's apt is set up to read; nothing where there is no apt."""
    lines: list[str] = []
    try:
        run(
            ["apt-get", "indextargets", "--format", _TARGETS, "Identifier: Packages"],
            cwd=Path("/"),
            env=workspace.environ,
            on_line=lines.append,
        )
    except ToolError:
        return []
    return lines


def debian_sources(targets: Sequence[str], suite: str) -> list[str]:
    """Make mmdebstrap's source lines for `suite` from the mirrors apt uses: none if it uses none of Debian's.

    `targets` are lines of origin, address and release. Security and update archives are left out: a base is to be
    the same tomorrow.
    """
    mirrors = []
    for line in targets:
        origin, _, rest = line.partition("|")
        address, _, release = rest.rpartition("|")
        if origin == "Debian" and not re.search(r"-(security|updates|backports)", release):
            mirrors.append(address)
    return [f"deb {mirror} {suite} main" for mirror in dict.fromkeys(mirrors)]


# From a container registry.


def _pulled(fact: RegistryBase, client: Client, workspace: Workspace) -> Base:
    path = workspace.project / LOCK
    locked = _read_lock(path).get(fact.name)
    reference = f"{fact.image}@{locked}" if locked else fact.reference
    if client.inspect(reference) is None:
        workspace.reporter.note(f"pulling {reference}")
        _pull(reference, fact, client, locked=locked is not None)
    inspected = client.inspect(reference) or {}
    try:
        digest = digest_of(inspected, fact.image)
    except ValueError as error:
        raise SourceError(f"base {fact.name} cannot be identified: {error}") from error
    check_lock(path, fact.name, digest, workspace)
    base = _named(fact, digest.removeprefix("sha256:"))
    client.do("tag", reference, base.tag, what=f"tag of {reference}")
    return base


def _pull(reference: str, fact: RegistryBase, client: Client, *, locked: bool) -> None:
    done = client.ask("pull", reference)
    if done.status == 0:
        return
    unlock = f"if {fact.image} has it no more and what {fact.tag} is now is wanted: remove {fact.name} from {LOCK}"
    raise ToolError(
        f"{client.program} cannot pull {reference}, which base {fact.name} is",
        detail=done.tail,
        hint=unlock if locked else f"{client.program} pull {reference}   # does the registry answer?",
    )


# What was found the first time.


def _read_lock(path: Path) -> Mapping[str, str]:
    return json.loads(path.read_bytes()) if path.is_file() else {}


def check_lock(path: Path, name: str, found: str, workspace: Workspace) -> None:
    """Hold `found` against what is written down for `name`, or write it down if nothing is.

    SourceError if it differs.
    """
    locked = _read_lock(path)
    if name not in locked:
        write_atomic(path, json.dumps({**locked, name: found}, indent=2, sort_keys=True).encode() + b"\n")
        workspace.reporter.warn(f"base {name} was not known before: {found} is written into {path}; commit it")
    elif locked[name] != found:
        raise SourceError(
            f"base {name} is not what it was: the name now stands for other content",
            detail=[f"written down: {locked[name]}", f"found now:    {found}", f"in {path}"],
            hint=f"if the change is wanted, remove {name} from {LOCK} and build again",
        )
