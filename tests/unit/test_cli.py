"""The command line without building anything: exit codes, where the project is, cleaning."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.cli import VERBS, find_verb, run_command


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
    assert [verb for verb in VERBS if f'\nverb("{verb}", ' not in noxfile] == []


def test_every_verb_is_a_function_of_its_module() -> None:
    assert {find_verb(name).__name__.replace("_", "-") for name in VERBS} == set(VERBS)


def test_a_plan_does_not_wait_for_what_other_verbs_load() -> None:
    heavy = ("werkzeug", "securesystemslib", "jsonschema", "simple_repository", "distributed")
    code = f"import sys, hopperforge.cli as cli; cli.find_verb('plan'); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
    assert run_command(["plan", "cuda=13.0", "toolkit=registry", "engine=host"]) == 0
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


@pytest.mark.usefixtures("checkout")
def test_clean_leaves_a_folder_alone_that_is_not_all_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = tmp_path / "cache" / "documents" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    assert run_command(["clean", "what=cache"]) == 2
    assert thesis.exists()
    assert "documents" in capsys.readouterr().err


@pytest.mark.usefixtures("checkout")
def test_first_plan_sizes_for_real_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "cuda=13.0", "toolkit=registry"]) == 0
    out = capsys.readouterr().out
    assert "7.6 GiB per unit" in out
    assert "number of units known once" in out
    assert run_command(["plan", "cuda=13.0", "toolkit=registry", "merge=off"]) == 0
    assert "6.5 GiB per unit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "which verb?"),
        (["fetch", "cuda=13.0"], "the words here are: none"),
        (["fetch", "--json"], "fetch has no --json"),
    ],
)
@pytest.mark.usefixtures("checkout")
def test_misuse_is_named(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(argv) == 2
    assert says in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(checkout: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m hopperforge plan cuda=13.0 toolkit=registry | true"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", "HOPPERFORGE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 141)


def test_a_process_that_multiprocessing_starts_runs_no_command() -> None:
    """It imports the main module of its parent under this name."""
    runpy.run_module("hopperforge.__main__", run_name="__mp_main__")
