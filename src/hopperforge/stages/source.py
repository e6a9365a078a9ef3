"""The source stage: upstream's files from whichever origin has them, proven by the pin's git tree hashes.

A source is unpacked once, into `sources/<pin>-<key>`, and hashed again on every use: the key names the trees,
so what lies there is right or it is thrown away.
"""

import hashlib
import json
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, assert_never

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.keys import JsonValue, canonical_json
from hopperforge.model.toolkit import PinnedFile
from hopperforge.model.upstream import GitOrigin, Origin, SdistOrigin, UpstreamPin, VerifiedSource
from hopperforge.run.archives import unpack_tar
from hopperforge.run.download import fetch
from hopperforge.run.files import (
    Lock,
    git_tree_hash,
    make_folder,
    remove_folder,
    replace_folder,
    sha256_file,
    storage_guard,
    sweep,
    temporary_folder,
    write_atomic,
)
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace

NOTICES: Final = ("csrc/cutlass/LICENSE.txt",)
"""Licences taken along with the trees where an origin has them; nothing is compiled from them."""


def fetch_source(pin: UpstreamPin, workspace: Workspace) -> VerifiedSource:
    """Give the pin's trees in a folder, from the cache or from the first origin whose files have the right hashes.

    A source in the cache is verified without network. SourceError, listing every origin and what became of it,
    if none has the pinned trees.
    """
    root = _root(pin, workspace)
    name = root.name
    wait = partial(workspace.reporter.note, f"waiting for another run that fetches {pin.name}")
    with Lock(workspace.sources / f"{name}.lock", on_wait=wait):
        with storage_guard(workspace.sources):
            sweep(workspace.sources, name)
        origin = _cached_origin(pin, root, workspace)
        if origin is None:
            origin = _fetch_from_any(pin, root, workspace)
    return VerifiedSource(pin=pin, root=root, origin=origin)


def find_source(pin: UpstreamPin, workspace: Workspace) -> VerifiedSource | None:
    """Give the pin's trees if they are in the cache and verified; nothing is fetched."""
    root = _root(pin, workspace)
    origin = _cached_origin(pin, root, workspace)
    return VerifiedSource(pin=pin, root=root, origin=origin) if origin is not None else None


def _root(pin: UpstreamPin, workspace: Workspace) -> Path:
    trees = hashlib.sha256(canonical_json(pin.trees)).hexdigest()
    return workspace.sources / f"{pin.name}-{trees[:16]}"


def _cached_origin(pin: UpstreamPin, root: Path, workspace: Workspace) -> str | None:
    """The origin of the source in the cache; None, and the folder removed, if it is not what it should be."""
    if not root.is_dir():
        return None
    receipt_path = _receipt_path(root)
    try:
        receipt = json.loads(receipt_path.read_bytes())
        origin, notices = str(receipt["origin"]), receipt["notices"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        origin, wrong = "", ["its receipt is missing or damaged"]
    else:
        wrong = _wrong_trees(pin, root) + _wrong_rest(pin, root, notices)
    if not wrong:
        return origin
    workspace.reporter.warn(f"{root} is not what was fetched ({'; '.join(wrong)}): fetching it again")
    with storage_guard(root):
        remove_folder(root)
        receipt_path.unlink(missing_ok=True)
    return None


def _receipt_path(root: Path) -> Path:
    return root.with_name(f"{root.name}.json")


def _fetch_from_any(pin: UpstreamPin, root: Path, workspace: Workspace) -> str:
    failures: list[str] = []
    for origin in pin.origins:
        workspace.reporter.note(f"fetching {pin.name} from {origin}")
        problems = _fetch_from(pin, origin, root, workspace)
        if not problems:
            return str(origin)
        failures += [f"{origin}: {problems[0]}", *(f"  {line}" for line in problems[1:])]
        workspace.reporter.note(f"{origin} does not serve: {problems[0]}")
    message = f"no origin has the pinned source {pin.name} (commit {pin.commit})"
    raise SourceError(
        message,
        detail=failures or ["flash-attention/upstream.yaml names no origin for it"],
        hint="python -m pip config list   # check the network, or add an origin to flash-attention/upstream.yaml",
    )


def _fetch_from(pin: UpstreamPin, origin: Origin, root: Path, workspace: Workspace) -> list[str]:
    """Put the source of one origin at `root`; the lines returned say why that could not be done, none if it was."""
    with temporary_folder(workspace.sources, root.name) as work:
        tree = work / "tree"
        try:
            _take(pin, origin, work, tree, workspace)
        except (SourceError, ToolError) as error:
            return [error.sentence, *error.detail]
        wrong = _wrong_trees(pin, tree)
        if not wrong:
            # The receipt goes first: without its folder it means nothing.
            receipt: dict[str, JsonValue] = {"origin": str(origin), "notices": _notices(tree)}
            write_atomic(_receipt_path(root), canonical_json(receipt))
            replace_folder(tree, root)
        return wrong


def _take(pin: UpstreamPin, origin: Origin, work: Path, tree: Path, workspace: Workspace) -> None:
    match origin:
        case SdistOrigin():
            _take_from_sdist(pin, origin, tree, workspace)
        case GitOrigin():
            _take_from_git(pin, origin, work, tree, workspace)
        case _:
            assert_never(origin)


def _wanted(pin: UpstreamPin, path: PurePosixPath) -> bool:
    return str(path) in NOTICES or any(path.is_relative_to(folder) for folder in pin.trees)


def _take_from_sdist(pin: UpstreamPin, origin: SdistOrigin, tree: Path, workspace: Workspace) -> None:
    file = PinnedFile(project=origin.project, filename=origin.filename, sha256=origin.sha256)
    archive = fetch(file, workspace, unreachable=SourceError)

    def below_folder(member: PurePosixPath) -> PurePosixPath | None:
        inside = PurePosixPath(*member.parts[1:])
        if not inside.is_relative_to(origin.folder):
            return None
        path = inside.relative_to(origin.folder)
        return path if _wanted(pin, path) else None

    unpack_tar(archive, make_folder(tree), below_folder)


def _take_from_git(pin: UpstreamPin, origin: GitOrigin, work: Path, tree: Path, workspace: Workspace) -> None:
    clone = make_folder(work / "clone")
    environ = {**workspace.environ, "GIT_TERMINAL_PROMPT": "0"}
    logs = make_folder(workspace.logs)

    def git(*words: str) -> tuple[str, ...]:
        lines: list[str] = []
        log = logs / f"source-{pin.name}-git-{words[0]}.log"
        done = run(
            # Line ends stay as they are in the repository, whatever the user's own git does with them.
            ["git", "-c", "core.autocrlf=false", *words],
            cwd=clone,
            env=environ,
            log=log,
            on_line=lines.append,
            on_heartbeat=lambda seconds: workspace.reporter.note(f"git {words[0]}: {seconds:.0f} s so far"),
        )
        if done.status != 0:
            message = f"git {words[0]} ended with status {done.status}"
            raise SourceError(message, detail=[*done.tail[-5:], f"log: {log}"])
        return tuple(lines)

    git("init", "--quiet")
    git("remote", "add", "origin", origin.url)
    git("fetch", "--quiet", "--depth", "1", "origin", pin.commit)
    git("checkout", "--quiet", "--detach", pin.commit)
    submodules = _needed_submodules(pin, git("ls-files", "--stage"))
    if submodules:
        git("submodule", "update", "--quiet", "--init", "--depth", "1", "--", *submodules)
    _move_wanted(pin, clone, tree)


def _needed_submodules(pin: UpstreamPin, staged: tuple[str, ...]) -> list[str]:
    """The submodules that hold pinned trees; `git ls-files --stage` lists a submodule with mode 160000."""
    paths = [line.split("\t", 1)[1] for line in staged if line.startswith("160000 ")]
    return [path for path in paths if any(PurePosixPath(folder).is_relative_to(path) for folder in pin.trees)]


def _move_wanted(pin: UpstreamPin, clone: Path, tree: Path) -> None:
    with storage_guard(tree):
        for path in (*pin.trees, *NOTICES):
            found = clone / path
            if found.exists():
                target = tree / path
                make_folder(target.parent)
                found.rename(target)


def _wrong_trees(pin: UpstreamPin, root: Path) -> list[str]:
    """One line for each pinned folder of `root` that is missing or has another hash."""
    wrong = []
    for folder, pinned in pin.trees.items():
        place = root / folder
        if not place.is_dir():
            wrong.append(f"{folder} is missing")
            continue
        try:
            found = git_tree_hash(place)
        except SourceError as error:
            wrong.append(error.sentence)
        else:
            if found != pinned:
                wrong.append(f"{folder} has tree hash {found}, pinned is {pinned}")
    return wrong


def _wrong_rest(pin: UpstreamPin, root: Path, notices: object) -> list[str]:
    """One line for what lies outside the pinned folders and is not what the receipt says."""
    outside = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
    strays = [path for path in outside if not _wanted(pin, PurePosixPath(path))]
    wrong = [f"{path} does not belong there" for path in strays]
    if _notices(root) != notices:
        wrong.append("a licence file differs")
    return wrong


def _notices(root: Path) -> dict[str, str]:
    return {name: sha256_file(root / name) for name in NOTICES if (root / name).is_file()}
