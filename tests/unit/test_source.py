"""The source stage: any origin will do, none is believed, and what is cached is checked again."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hopperforge.errors import SourceError
from hopperforge.model.upstream import GitOrigin, Origin, SdistOrigin, UpstreamPin
from hopperforge.report import Recorder
from hopperforge.run.files import git_tree_hash
from hopperforge.run.workspace import Workspace
from hopperforge.stages.source import fetch_source

FILENAME = "carrier-1.0.tar.gz"
FILES = {
    "hopper/setup.py": "print('hopper')\n",
    "hopper/instantiations/unit.cu": "// unit\n",
    "csrc/cutlass/include/cute/layout.hpp": "// layout\n",
    "csrc/cutlass/LICENSE.txt": "BSD\n",
    "csrc/cutlass/README.md": "not taken\n",
    "README.md": "not taken\n",
}
TAKEN = {name: text for name, text in FILES.items() if not name.endswith("README.md")}
TREES = ("hopper", "csrc/cutlass/include")


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _sdist(links: Path, files: dict[str, str]) -> SdistOrigin:
    """Put a source distribution with `files` in vendor/fa into the folder pip looks in."""
    links.mkdir(exist_ok=True)
    members = {f"carrier-1.0/vendor/fa/{name}": text for name, text in files.items()}
    members["carrier-1.0/LICENSE"] = "the carrier's own"
    with tarfile.open(links / FILENAME, "w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return _origin(links / FILENAME)


def _origin(archive: Path) -> SdistOrigin:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return SdistOrigin(project="carrier", filename=archive.name, sha256=digest, folder="vendor/fa")


def _pin(tmp_path: Path, *origins: Origin, commit: str = "0" * 40) -> UpstreamPin:
    original = _write(tmp_path / "original", FILES)
    trees = {folder: git_tree_hash(original / folder) for folder in TREES}
    return UpstreamPin(name="v1", commit=commit, epoch=1, trees=trees, origins=origins)


def _workspace(tmp_path: Path, **environ: str) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "links")}
    workspace = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ=pip | environ,
        reporter=recorder,
    )
    return workspace, recorder


def test_a_source_distribution_gives_the_pinned_folders_and_their_licence_only(tmp_path: Path) -> None:
    pin = _pin(tmp_path, _sdist(tmp_path / "links", FILES))
    workspace, _ = _workspace(tmp_path)
    source = fetch_source(pin, workspace)
    assert source.root.parent == workspace.sources
    assert source.origin == f"sdist {FILENAME}"
    assert _files(source.root) == TAKEN


def test_a_second_run_needs_no_network(tmp_path: Path) -> None:
    pin = _pin(tmp_path, _sdist(tmp_path / "links", FILES))
    workspace, recorder = _workspace(tmp_path)
    first = fetch_source(pin, workspace)
    shutil.rmtree(tmp_path / "links")
    shutil.rmtree(workspace.files)
    recorder.notes.clear()
    assert fetch_source(pin, workspace) == first
    assert recorder.notes == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root: (root / "hopper/setup.py").write_text("print('evil!')\n"), "hopper has tree hash"),
        (lambda root: (root / "hopper/setup.py").unlink(), "hopper has tree hash"),
        (lambda root: (root / "hopper/link").symlink_to("setup.py"), "neither a file nor a folder"),
        (lambda root: shutil.rmtree(root / "csrc/cutlass/include"), "csrc/cutlass/include is missing"),
        (lambda root: (root / "csrc/cutlass/LICENSE.txt").write_text("other"), "a licence file differs"),
        (lambda root: (root / "csrc/evil.h").write_text(""), "csrc/evil.h does not belong there"),
        (lambda root: root.with_name(f"{root.name}.json").unlink(), "receipt is missing or damaged"),
        (lambda root: root.with_name(f"{root.name}.json").write_text("{"), "receipt is missing or damaged"),
    ],
)
def test_a_cached_source_that_changed_is_fetched_again(
    damage: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    pin = _pin(tmp_path, _sdist(tmp_path / "links", FILES))
    workspace, recorder = _workspace(tmp_path)
    root = fetch_source(pin, workspace).root
    damage(root)
    source = fetch_source(pin, workspace)
    assert _files(source.root) == TAKEN
    assert source.origin == f"sdist {FILENAME}"
    (warning,) = recorder.warnings
    assert reason in warning


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    pin = _pin(tmp_path, _sdist(tmp_path / "links", FILES))
    workspace, _ = _workspace(tmp_path)
    root = fetch_source(pin, workspace).root
    shutil.rmtree(root)
    _write(root.with_name(f".{root.name}.0a1b2c3d"), {"tree/hopper/setup.py": "half"})
    fetch_source(pin, workspace)
    assert [path.name for path in workspace.sources.iterdir() if path.name.startswith(".")] == []


def test_a_changed_byte_in_the_archive_is_refused_with_both_hashes(tmp_path: Path) -> None:
    origin = _sdist(tmp_path / "links", FILES)
    archive = tmp_path / "links" / FILENAME
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    workspace, _ = _workspace(tmp_path)
    with pytest.raises(SourceError, match="no origin has the pinned source v1") as caught:
        fetch_source(_pin(tmp_path, origin), workspace)
    text = "\n".join(caught.value.detail)
    assert f"sdist {FILENAME}: {FILENAME} is not the file that is pinned" in text
    assert origin.sha256 in text
    assert _origin(archive).sha256 in text
    assert list(workspace.files.rglob(FILENAME)) == []


def test_a_changed_byte_in_the_cached_archive_costs_a_second_fetch(tmp_path: Path) -> None:
    pin = _pin(tmp_path, _sdist(tmp_path / "links", FILES))
    workspace, recorder = _workspace(tmp_path)
    shutil.rmtree(fetch_source(pin, workspace).root)
    (archive,) = workspace.files.rglob(FILENAME)
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    assert _files(fetch_source(pin, workspace).root) == TAKEN
    assert "has changed since it was fetched" in recorder.warnings[0]


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    _sdist(tmp_path / "links", FILES)
    archive = tmp_path / "links" / FILENAME
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(SourceError) as caught:
        fetch_source(_pin(tmp_path, _origin(archive)), _workspace(tmp_path)[0])
    assert f"sdist {FILENAME}: {FILENAME} is cut off, damaged, or not an archive" in caught.value.detail[0]


def test_an_archive_member_that_climbs_out_is_refused(tmp_path: Path) -> None:
    origin = _sdist(tmp_path / "links", FILES | {"../../../../x": "evil"})
    workspace, _ = _workspace(tmp_path)
    with pytest.raises(SourceError) as caught:
        fetch_source(_pin(tmp_path, origin), workspace)
    assert "is refused: its member 'carrier-1.0/vendor/fa/../../../../x' climbs out" in caught.value.detail[0]
    assert [path.name for path in workspace.sources.iterdir() if path.is_dir()] == []


def test_the_next_origin_is_asked_when_one_has_other_files(tmp_path: Path) -> None:
    changed = _sdist(tmp_path / "links", FILES | {"hopper/setup.py": "print('other')\n"})
    (tmp_path / "links" / FILENAME).rename(tmp_path / "links" / "carrier-0.9.tar.gz")
    older = replace(changed, filename="carrier-0.9.tar.gz")
    right = _sdist(tmp_path / "links", FILES)
    pin = _pin(tmp_path, older, right)
    workspace, recorder = _workspace(tmp_path)
    assert fetch_source(pin, workspace).origin == f"sdist {FILENAME}"
    (note,) = (note for note in recorder.notes if "does not serve" in note)
    assert note.startswith("sdist carrier-0.9.tar.gz does not serve: hopper has tree hash ")
    assert note.endswith(f"pinned is {pin.trees['hopper']}")


def test_every_origin_and_what_became_of_it_is_listed(tmp_path: Path) -> None:
    absent = SdistOrigin(project="carrier", filename="carrier-2.tar.gz", sha256="1" * 64, folder="x")
    other = _sdist(tmp_path / "links", {"hopper/setup.py": "print('other')\n"})
    with pytest.raises(SourceError) as caught:
        fetch_source(_pin(tmp_path, absent, other), _workspace(tmp_path)[0])
    text = "\n".join(caught.value.detail)
    assert "sdist carrier-2.tar.gz: carrier-2.tar.gz cannot be fetched from the package index" in text
    assert f"sdist {FILENAME}: hopper has tree hash " in text
    assert "  csrc/cutlass/include is missing" in text
    assert caught.value.hint is not None


def _git(folder: Path, *words: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["git", *words], cwd=folder, env=_git_environ(folder), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _git_environ(home: Path) -> dict[str, str]:
    names = {f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # git refuses submodules from file:// addresses unless told otherwise
    allow = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **names, **allow}


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """Make a repository with cutlass as a submodule and a later commit; give its address and the first commit."""
    cutlass = tmp_path / "cutlass"
    prefix = "csrc/cutlass/"
    _write(cutlass, {name.removeprefix(prefix): text for name, text in FILES.items() if name.startswith(prefix)})
    main = _write(tmp_path / "main", {name: text for name, text in FILES.items() if not name.startswith(prefix)})
    for folder in (cutlass, main):
        _git(folder, "init", "--quiet")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message", "first")
    _git(main, "submodule", "--quiet", "add", cutlass.as_uri(), "csrc/cutlass")
    _git(main, "submodule", "--quiet", "add", (tmp_path / "cutlass").as_uri(), "csrc/unneeded")
    _git(main, "commit", "--quiet", "--message", "submodules")
    commit = _git(main, "rev-parse", "HEAD")
    (main / "hopper/setup.py").write_text("print('later')\n")
    _git(main, "commit", "--quiet", "--all", "--message", "later")
    return main.as_uri(), commit


def test_git_gives_the_pinned_folders_of_the_commit_and_its_submodule(
    repository: tuple[str, str], tmp_path: Path
) -> None:
    url, commit = repository
    workspace, _ = _workspace(tmp_path, **_git_environ(tmp_path))
    source = fetch_source(_pin(tmp_path, GitOrigin(url=url), commit=commit), workspace)
    assert source.origin == f"git {url}"
    assert _files(source.root) == TAKEN


def test_git_and_the_source_distribution_give_the_same(repository: tuple[str, str], tmp_path: Path) -> None:
    url, commit = repository
    workspace, _ = _workspace(tmp_path, **_git_environ(tmp_path))
    sdist = _sdist(tmp_path / "links", FILES)
    from_git = fetch_source(_pin(tmp_path, GitOrigin(url=url), sdist, commit=commit), workspace)
    held = _files(from_git.root)
    shutil.rmtree(from_git.root)
    from_sdist = fetch_source(_pin(tmp_path, sdist, GitOrigin(url=url), commit=commit), workspace)
    assert from_sdist.root == from_git.root
    assert _files(from_sdist.root) == held


def test_a_commit_that_git_does_not_have_is_said_with_the_log(repository: tuple[str, str], tmp_path: Path) -> None:
    url, _ = repository
    workspace, _ = _workspace(tmp_path, **_git_environ(tmp_path))
    with pytest.raises(SourceError) as caught:
        fetch_source(_pin(tmp_path, GitOrigin(url=url), commit="1" * 40), workspace)
    assert caught.value.detail[0].startswith(f"git {url}: git fetch ended with status ")
    log = Path(caught.value.detail[-1].removeprefix("  log: "))
    assert "1" * 40 in log.read_text()


def test_another_commit_is_refused_by_its_tree_hash(repository: tuple[str, str], tmp_path: Path) -> None:
    url, _ = repository
    later = _git(tmp_path / "main", "rev-parse", "HEAD")
    workspace, _ = _workspace(tmp_path, **_git_environ(tmp_path))
    with pytest.raises(SourceError) as caught:
        fetch_source(_pin(tmp_path, GitOrigin(url=url), commit=later), workspace)
    assert caught.value.detail[0].startswith(f"git {url}: hopper has tree hash ")


def test_without_git_the_other_origin_serves(tmp_path: Path) -> None:
    pin = _pin(tmp_path, GitOrigin(url="file:///nowhere"), _sdist(tmp_path / "links", FILES))
    workspace, recorder = _workspace(tmp_path, PATH=str(tmp_path / "empty"))
    assert _files(fetch_source(pin, workspace).root) == TAKEN
    assert any("git cannot be started: No such file or directory" in note for note in recorder.notes)
