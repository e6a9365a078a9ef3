"""What nodes run beside the doctor: Python 3.9, the standard library, the node's modules, and torch by name alone."""

import ast
import io
import sys
import zipfile
from pathlib import Path

import pytest

from hopperforge.node.gpu import words
from hopperforge.node.gpu.backends import _MAKERS
from hopperforge.node.gpu.command import VERBS
from hopperforge.node.gpu.single_program import node_program

FOLDER = Path("src/hopperforge/node/gpu")


def _modules(project_root: Path) -> dict[str, ast.Module]:
    # the parts of one file on a node: not what puts them together
    return {
        path.name: ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        for path in (project_root / FOLDER).glob("*.py")
        if path.name != "single_program.py"
    }


def _foreign(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {
        name
        for name in names
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("hopperforge.node.")
    }


def test_modules_import_the_standard_library_and_the_node_alone(project_root: Path) -> None:
    modules = _modules(project_root)
    assert len(modules) > 10
    assert {name: found for name, tree in modules.items() if (found := _foreign(tree))} == {}


@pytest.mark.parametrize(
    "line", ["import torch", "from rich import print", "from hopperforge.errors import InputError"]
)
def test_another_import_would_be_found(line: str) -> None:
    assert len(_foreign(ast.parse(line))) == 1


def test_the_file_holds_whole_modules_and_is_the_same_each_time(project_root: Path) -> None:
    data = node_program()
    assert data == node_program()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        for name in names:
            ast.parse(archive.read(name), feature_version=(3, 9))
    assert {f"hopperforge/node/gpu/{name}" for name in _modules(project_root)} <= set(names)
    assert {"__main__.py", "hopperforge/__init__.py", "hopperforge/node/looking.py"} <= set(names)
    assert [name for name in names if "single_" in name or name.count("/") == 1] == ["hopperforge/__init__.py"]


def test_every_backend_and_verb_that_is_named_is_there() -> None:
    assert set(_MAKERS) == set(words.BACKENDS)
    assert set(VERBS) == {"bench", "memory", "verify-install"}
