"""The words of `verify`: where imports are proven, and which words do not go together."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
from tests.unit.record_zoo import record

from hopperforge.cli import run_command
from hopperforge.model.front import FrontKind
from hopperforge.model.record import Record, ServedCell
from hopperforge.verbs_packages import find_interpreter


@pytest.fixture
def wheel(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A wheel in a wheelhouse of a checkout; nothing can be proven of it, for it is no archive."""
    root = tmp_path / "checkout"
    for name in ("recipes", "patches", "flash-attention", "image"):
        shutil.copytree(project_root / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "src"))
    shutil.copyfile(project_root / "matrix.yaml", root / "matrix.yaml")
    path = root / "wheelhouse" / record().wheel.file
    path.parent.mkdir()
    path.write_bytes(b"wheel")
    facts = dataclasses.replace(record().wheel, sha256=hashlib.sha256(b"wheel").hexdigest())
    path.with_name(f"{path.name}.json").write_bytes(record(wheel=facts).to_json())
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOPPERFORGE_WHEELHOUSE", raising=False)
    return f"wheel={path}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["base=trixie", "engine=host"], "base=trixie is for containers, and engine=host runs none"),
        (["engine=docker"], "engine=docker imports in a container of a base, and the word base= is missing"),
        (["base=trixie", "interpreter=python3"], "interpreter= and base= do not go together"),
        (
            ["base=trixy"],
            'base=trixy: there are bullseye, bookworm, trixie, manylinux-2-28; perhaps you meant "trixie"',
        ),
        (["base=trixie", "engine=lxc"], "engine=lxc: there are docker, podman, host"),
        (["engine=dokcer"], "engine=dokcer: there are docker, podman, host; perhaps you meant"),
        (["bass=trixie"], "unknown word bass=trixie; perhaps you meant base=trixie"),
    ],
)
def test_words_that_cannot_be_meant(
    wheel: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["verify", wheel, "torch=2.9", *words]) == 2
    assert says in capsys.readouterr().err
    assert not (Path.cwd().parent / "cache").exists()


def test_what_binds_to_no_torch_is_sent_to_its_own_tests(wheel: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(wheel.removeprefix("wheel=") + ".json")
    place.write_bytes(dataclasses.replace(Record.from_json(place.read_bytes(), "r"), recipe="fa3-jax").to_json())
    assert run_command(["verify", wheel]) == 2
    said = capsys.readouterr().err
    assert "binds to no torch" in said
    assert f"hint: nox -s smoke -- {wheel} interpreter=python3" in said


def test_python_alone_names_no_torch_of_its_own(wheel: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(wheel.removeprefix("wheel=") + ".json")
    front = dataclasses.replace(record().front, kind=FrontKind.PYTHON)
    cell = ServedCell(cuda=None, torch=None, python=None, platform="any", runtime=None)
    found = Record.from_json(place.read_bytes(), "r")
    pure = dataclasses.replace(found, recipe="hopper-attention", front=front, cells=(cell,))
    place.write_bytes(pure.to_json())
    assert run_command(["verify", wheel]) == 2
    assert "names no torch: say beside which to import it" in capsys.readouterr().err


def test_an_interpreter_by_a_relative_path_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to("../python3")
    monkeypatch.chdir(tmp_path)
    assert find_interpreter("bin/python", {"PATH": ""}) == str(tmp_path / "bin/python")


def test_a_base_without_an_engine_says_what_is_missing(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_command(["verify", wheel, "torch=2.9", "base=trixie"]) == 5
    said = capsys.readouterr().err
    assert "base=trixie needs docker or podman" in said
    assert "hint: nox -s doctor -- engine" in said
