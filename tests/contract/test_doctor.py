"""The doctor is one file, of the standard library alone, for every Python from 3.9 on."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

from hopperforge.errors import NodeTroubleError, NothingFitsError, NotInstalledError, UnreadableIndexError
from hopperforge.node.single_file import PARTS, doctor_source
from hopperforge.node.values import EXIT_CODES

OLDEST = (3, 9)
NOT_PARTS = {"__init__", "single_file"}


def _modules(project_root: Path) -> dict[str, ast.Module]:
    folder = project_root / "src" / "hopperforge" / "node"
    return {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")}


def _imported(tree: ast.Module) -> list[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]


def test_every_module_is_a_part_that_needs_only_earlier_ones(project_root: Path) -> None:
    modules = _modules(project_root)
    assert set(modules) - NOT_PARTS == set(PARTS)
    for index, part in enumerate(PARTS):
        own = {name.removeprefix("hopperforge.node.") for name in _imported(modules[part]) if "hopperforge" in name}
        assert own <= set(PARTS[:index]), part


def test_parts_stand_on_the_standard_library_alone(project_root: Path) -> None:
    foreign = {
        name
        for part in PARTS
        for name in _imported(_modules(project_root)[part])
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("hopperforge.node.")
    }
    assert foreign == set()


def test_no_part_takes_the_name_of_another(project_root: Path) -> None:
    modules = _modules(project_root)
    names = Counter(
        node.name for part in PARTS for node in modules[part].body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_the_file_is_whole_and_of_the_oldest_python() -> None:
    text = doctor_source().decode()
    tree = ast.parse(text, feature_version=OLDEST)
    assert "hopperforge.node" not in text
    assert text.startswith("#!/usr/bin/env python3\n")
    # cut short on its way, it must do nothing rather than a part: the call is its last line
    assert text.splitlines()[-1].strip() == "sys.exit(main())"
    assert isinstance(tree.body[-1], ast.If)
    assert doctor_source() == text.encode()


def test_exit_codes_are_the_same_wherever_they_are_written(project_root: Path) -> None:
    text = (project_root / "docs" / "how-to" / "node.md").read_text(encoding="utf-8")
    rows = {status: int(code) for code, status in re.findall(r"^\| (\d+) \| `([a-z ]+)` \|", text, re.MULTILINE)}
    assert rows == EXIT_CODES
    head = ast.get_docstring(ast.parse(doctor_source())) or ""
    told = {int(code) for code in re.findall(r"(?:codes:|;)\s+(\d+) ", head)}
    assert told == {*EXIT_CODES.values(), 1, 2}
    of_the_verb = {NotInstalledError, NodeTroubleError, NothingFitsError, UnreadableIndexError}
    assert {error.exit_code for error in of_the_verb} == {*EXIT_CODES.values()} - {0}
