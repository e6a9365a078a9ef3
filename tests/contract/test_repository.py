"""The repository's own promises: patches, exit codes, README, sizes, and what must not be in it."""

import ast
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hopperforge import docs, errors
from hopperforge.config.project import load_project

PATCHES = sorted((Path(__file__).parents[2] / "patches").rglob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name)
def test_a_patch_says_why_where_and_until_when(patch: Path) -> None:
    header = patch.read_text(encoding="utf-8").split("diff --git")[0]
    assert header.startswith("Why: ")
    assert re.search(r"^Upstream: https://", header, re.MULTILINE)
    assert re.search(r"^Drop when: ", header, re.MULTILINE)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name)
def test_a_patch_carries_little_of_upstream(patch: Path) -> None:
    lines = patch.read_text(encoding="utf-8").split("diff --git", 1)[1].splitlines()
    assert not re.search(r"(?:\n .*){4}", "\n".join(lines)), "more than 3 lines of context in a row"
    removed = [line for line in lines if line.startswith("-") and not line.startswith("---")]
    assert len(removed) <= 12, "prefer an additive hunk"


def test_there_are_patches() -> None:
    assert len(PATCHES) >= 5


def test_exit_codes_are_unique() -> None:
    codes = [error.exit_code for error in errors.HopperforgeError.__subclasses__()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("name", "mark"), [("README.md", "<!-- support: "), ("docs/reference/exit-codes.md", "<!-- exit codes: ")]
)
def test_generated_tables_are_the_present_ones(project_root: Path, name: str, mark: str) -> None:
    text = (project_root / name).read_text(encoding="utf-8")
    assert mark in text
    assert docs.renew(text, load_project(project_root)) == text, f"run: python -m hopperforge.docs {name}"


def test_readme_is_short_and_its_sessions_exist(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    sessions = set(re.findall(r"nox -s ([a-z]+)", readme))
    assert {"build", "plan", "tests", "verify", "smoke", "record", "clean"} <= sessions
    assert sessions <= _sessions(project_root / "noxfile.py")


def test_ci_runs_the_readmes_test_command(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert "nox -s tests" in readme
    assert "nox -s lint typecheck tests" in (project_root / ".ci" / "run").read_text(encoding="utf-8")


def _sessions(path: Path) -> set[str]:
    """The sessions of a noxfile: its functions, and what it makes of verbs."""
    text = path.read_text(encoding="utf-8")
    return {*re.findall(r"^def (\w+)", text, re.MULTILINE), *re.findall(r'^verb\("(\w+)"', text, re.MULTILINE)}


def test_noxfile_is_thin(project_root: Path) -> None:
    text = (project_root / "noxfile.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE) == ["nox"]


def _source_files(project_root: Path) -> list[Path]:
    return [*(project_root / "src").rglob("*.py"), project_root / "noxfile.py"]


def test_modules_and_functions_stay_small(project_root: Path) -> None:
    large = [
        f"{path.name}: {len(path.read_text(encoding='utf-8').splitlines())} lines"
        for path in _source_files(project_root)
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    ]
    large += [
        f"{path.name}: {node.name}"
        for path in _source_files(project_root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 80
    ]
    assert large == []


def test_nothing_fetched_or_built_is_committed(project_root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=project_root, capture_output=True, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (project_root / name).is_file()]
    assert names
    forbidden = {".whl", ".so", ".o", ".a", ".cubin", ".gz", ".tar", ".zip", ".cu"}
    ours = [name for name in names if not fnmatch(name, "recipes/*/kernels/*.cu")]  # what a recipe brings itself
    assert [name for name in ours if Path(name).suffix in forbidden] == []
    assert [name for name in names if (project_root / name).stat().st_size > 1_000_000] == []
