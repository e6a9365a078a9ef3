"""Bad input at the command line: one sentence, the right exit code, nothing lost."""

import io
import shutil
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, hopperforge
from tests.small_disk import small_disk

from hopperforge.run.files import git_tree_hash

pytestmark = pytest.mark.integration

UNREACHABLE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("build", "colour=red"), 2, "unknown word colour=red"),
        (("plan", "torhc=2.9"), 2, "perhaps you meant torch=2.9"),
        (("plan", "profile=hdim129"), 2, "profile=hdim129: the recipes have fa3-fwd, fp32"),
        (("plan", "profile=fp32"), 2, "recipe=flash-attn-fp32 has it"),
        (("plan", "cuda=11.8"), 2, "cuda=11.8: not in the matrix, which has 12.4"),
        (("plan", "jobs=many"), 2, "not a whole number"),
        (("bild",), 2, "invalid choice: 'bild'"),
        (("verify", "wheel=nothing.whl"), 2, "there is no file nothing.whl"),
        (("record", "nothing.json"), 2, "nothing.json cannot be read"),
        (("plan", "cuda=13.0", "torch=2.15", "python=3.10"), 3, "nothing"),
    ],
)
def test_words(tmp_path: Path, words: tuple[str, ...], status: int, sentence: str) -> None:
    ended = hopperforge(*words, home=tmp_path)
    assert ended.status == status
    assert ended.err.startswith("error: ")
    assert sentence in ended.err
    assert ended.out == ""
    assert not (tmp_path / "wheelhouse").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of its own, with the real facts, recipes and patches."""
    root = tmp_path / "project"
    for name in ("recipes", "patches", "flash-attention"):
        shutil.copytree(PROJECT / name, root / name)
    shutil.copyfile(PROJECT / "matrix.yaml", root / "matrix.yaml")
    return root


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("matrix.yaml", '"3.10"', "3.10", 'write "3.10"'),
        ("matrix.yaml", "stable_floor:", 'stable_floor: "2.9"\nstable_floor:', "stable_floor"),
        ("recipes/fa3-fwd/recipe.yaml", "default_profile: fa3-fwd", "default_profile: fa3-fdw", "fa3-fwd"),
        ("recipes/fa3-fwd/recipe.yaml", "DISABLE_PAGEDKV", "DISABLE_PAGEKV", "DISABLE_PAGEDKV"),
    ],
)
def test_facts_name_file_line_and_column(
    tmp_path: Path, project: Path, *, file: str, old: str, new: str, message: str
) -> None:
    path = project / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    ended = hopperforge("plan", home=tmp_path, project=project)
    line = 1 + text[: text.index(old)].count("\n")
    assert ended.status == 2
    assert f"{file}:{line}" in ended.err or f"{file}:{line + 1}" in ended.err
    assert message in ended.err


def _archive(*more: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("x/fa/hopper/setup.py", *more):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"text\n"))
    return buffer.getvalue()


def _offer(project: Path, served: bytes, pinned: bytes, tmp_path: Path) -> dict[str, str]:
    """Point the pin at an archive of ours on an index in a folder; returns the environment that finds it."""
    page = tmp_path / "index" / "toy"
    page.mkdir(parents=True)
    (page / "toy-1.0.tar.gz").write_bytes(served)
    (page / "index.html").write_text('<a href="toy-1.0.tar.gz">toy-1.0.tar.gz</a>')
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "setup.py").write_bytes(b"text\n")
    (project / "flash-attention" / "upstream.yaml").write_text(
        f"""pins:
  v2.8.3-133-gde1584b:
    commit: {"a" * 40}
    epoch: 1
    trees:
      hopper: {git_tree_hash(tree)}
    origins:
      - kind: sdist
        project: toy
        filename: toy-1.0.tar.gz
        sha256: {sha256(pinned).hexdigest()}
        folder: fa
"""
        + _switches()
    )
    return {"PIP_INDEX_URL": (tmp_path / "index").as_uri(), "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}


def _switches() -> str:
    text = (PROJECT / "flash-attention" / "upstream.yaml").read_text()
    return text[text.index("switches:") :]


def _changed(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def test_source_archive_that_is_good_is_taken(tmp_path: Path, project: Path) -> None:
    good = _archive()
    ended = hopperforge("fetch", home=tmp_path, project=project, env=_offer(project, good, good, tmp_path))
    assert ended.status == 0, ended.err
    assert "from sdist toy-1.0.tar.gz" in ended.out


@pytest.mark.parametrize(
    ("served", "pinned", "message"),
    [
        (_changed, lambda good: good, "sha256"),
        (lambda good: good[: len(good) // 2], lambda good: good, "sha256"),
        (lambda good: good[: len(good) // 2], lambda good: good[: len(good) // 2], "cut off"),
        (lambda _: _archive("../x"), lambda _: _archive("../x"), "../x"),
        (lambda _: _archive("/x"), lambda _: _archive("/x"), "/x"),
    ],
    ids=["changed byte", "cut in transfer", "truncated and pinned", "member ../x", "absolute member"],
)
def test_source_archive_that_is_bad_is_refused(
    tmp_path: Path,
    project: Path,
    served: Callable[[bytes], bytes],
    pinned: Callable[[bytes], bytes],
    message: str,
) -> None:
    good = _archive()
    # gzip writes the time into its header: made once, the bytes stay comparable
    bad = served(good)
    expected = bad if pinned(good) != good else good
    ended = hopperforge("fetch", home=tmp_path, project=project, env=_offer(project, bad, expected, tmp_path))
    assert ended.status == 4
    assert "\nerror: " in ended.err
    assert "\nhint: " in ended.err
    assert message in ended.err, ended.err
    sources = tmp_path / "cache" / "sources"
    assert [path for path in sources.rglob("*") if path.suffix != ".lock"] == []
    assert not (tmp_path / "x").exists()


def test_patch_drift_names_the_hunk(tmp_path: Path, project: Path) -> None:
    good = _archive()
    env = _offer(project, good, good, tmp_path)
    ended = hopperforge("patch", "cuda=13.0", home=tmp_path, project=project, env=env)
    assert ended.status == 4
    assert "patch 0001-no-downloads-no-git.patch does not apply" in ended.err
    assert "hopper/setup.py:" in ended.err


def _path_with(tmp_path: Path, *programs: str) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found
        (folder / program).symlink_to(found)
    return str(folder)


def test_no_nvcc_and_no_registry(tmp_path: Path, project: Path) -> None:
    good = _archive()
    env = _offer(project, good, good, tmp_path)
    fetched = hopperforge("fetch", home=tmp_path, project=project, env=env)
    assert fetched.status == 0
    for patch in (project / "patches").rglob("*.patch"):
        patch.unlink()
    without = {**UNREACHABLE, "PATH": _path_with(tmp_path, "git", "g++"), "CUDA_HOME": None, "CUDA_PATH": None}
    ended = hopperforge("build", "cuda=13.0", "engine=host", home=tmp_path, project=project, env=without)
    assert ended.status == 5
    assert "CUDA 13.0" in ended.err
    assert "error: " in ended.err
    assert "hint: " in ended.err


def test_no_host_compiler(tmp_path: Path) -> None:
    env = {"PATH": _path_with(tmp_path, "git"), "CXX": None}
    ended = hopperforge("build", "cuda=13.0", "toolkit=registry", "engine=host", home=tmp_path, env=env)
    assert ended.status == 5
    assert "g++" in ended.err
    assert "hint: apt-get install" in ended.err


def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "cache", "size=4m"):
        ended = hopperforge("fetch", home=tmp_path)
        left = [path for path in (tmp_path / "cache").rglob("*.tar.gz*") if path.is_file()]
    assert ended.status == 11
    assert "full" in ended.err or "space" in ended.err
    assert left == []
