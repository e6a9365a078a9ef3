"""The command line without building anything: exit codes, where the project is, cleaning."""

import shutil
from pathlib import Path

import pytest

from hopperforge.cli import VERBS, run_command


@pytest.fixture
def checkout(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout with a blank"
    for name in ("recipes", "patches", "flash-attention"):
        shutil.copytree(project_root / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(project_root / "matrix.yaml", root / "matrix.yaml")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    return root


def test_every_verb_has_a_session(project_root: Path) -> None:
    noxfile = (project_root / "noxfile.py").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"def {verb}(session" not in noxfile] == []


def test_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["plan"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is in no checkout of hopperforge")


def test_from_a_folder_below(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout / "recipes")
    assert run_command(["plan", "cuda=13.0", "toolkit=registry"]) == 0
    assert "build fa3-fwd/fa3-fwd cu130" in capsys.readouterr().out


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "--jason"]) == 2
    assert "unrecognized arguments: --jason" in capsys.readouterr().err


@pytest.mark.usefixtures("checkout")
def test_clean_removes_what_it_names_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("work", "store"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "file").write_text("x")
    assert run_command(["clean", "what=work"]) == 0
    assert f"removed {tmp_path / 'cache' / 'work'}" in capsys.readouterr().out
    assert not (tmp_path / "cache" / "work").exists()
    assert (tmp_path / "cache" / "store" / "file").exists()


@pytest.mark.usefixtures("checkout")
def test_clean_of_something_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["clean", "what=all"]) == 2
    assert "work, cache, wheelhouse" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    (checkout / "flash-attention" / "upstream.yaml").touch()
    assert run_command(["fetch"]) == 11
    assert str(tmp_path / "cache") in capsys.readouterr().err
