"""The layer rule: imports go left only."""

import ast
from pathlib import Path

import pytest

PACKAGE = "hopperforge"

# Each module belongs to the first layer whose prefix it has; a layer may import itself and those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "report", "model", "__init__"),
    (
        "config",
        "collapsing",
        "pairing",
        "merging",
        "planning",
        "sizing",
        "plan_report",
        "support",
        "unit_words",
        "node",
        "index",
        "provenance",
    ),
    ("run",),
    ("setup_job", "store", "executors"),
    ("stages",),
    ("preparing",),
    ("pipeline",),
    (
        "console",
        "docs",
        "verbs",
        "verbs_bundle",
        "verbs_cache",
        "verbs_doctor",
        "verbs_gpu",
        "verbs_index",
        "verbs_node",
        "verbs_packages",
        "verbs_proof",
        "verbs_serve",
        "verbs_upload",
        "cli",
        "__main__",
    ),
)


def _layer(module: str) -> int:
    for index, prefixes in enumerate(LAYERS):
        if any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
            return index
    message = f"{module} belongs to no layer: add it to LAYERS in {__file__}"
    raise AssertionError(message)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix(PACKAGE + ".") for name in found if name.startswith(PACKAGE + ".")}


def _modules(project_root: Path) -> dict[str, Path]:
    source = project_root / "src" / PACKAGE
    paths = [path for path in source.rglob("*.py") if "setup_shim" not in path.parts]
    return {".".join(path.relative_to(source).with_suffix("").parts): path for path in paths}


def test_imports_go_left_only(project_root: Path) -> None:
    modules = _modules(project_root)
    wrong = [
        f"{module} imports {target}"
        for module, path in modules.items()
        for target in _imports(path)
        if target in modules and _layer(target) > _layer(module.removesuffix(".__init__"))
    ]
    assert wrong == []


def test_an_import_to_the_right_would_be_found(tmp_path: Path) -> None:
    module = tmp_path / "sizing.py"
    module.write_text("from hopperforge.run import process\n")
    assert "run.process" in _imports(module)
    assert _layer("run.process") > _layer("sizing")


def test_a_module_of_no_layer_is_refused() -> None:
    with pytest.raises(AssertionError, match="add it to LAYERS"):
        _layer("somewhere")
