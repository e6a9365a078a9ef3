"""Gates of packages of Python alone: nothing of machine code, sources of the Python they promise, and an installation.

The gates on metadata, RECORD, contents, paths and size are those of every wheel; see `gates` and `gates_contents`.
"""

import ast
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from hopperforge.run.files import temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import module, run_tool
from hopperforge.stages.gates import PURE_TAG, Refused, gate, refuse_if
from hopperforge.stages.wheel_archive import ELF_MAGIC, WheelArchive

_NATIVE: Final = {
    ELF_MAGIC: "machine code of Linux",
    b"MZ": "machine code of Windows",
    b"\xcf\xfa\xed\xfe": "machine code of macOS",
    b"\xca\xfe\xba\xbe": "machine code of macOS",
    b"!<arch>\n": "a static library",
    b"\0asm": "machine code of WebAssembly",
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "an archive",
}
_NO_SOURCES: Final = (".pth", ".pyc", ".so", ".pyd")


@gate("pure")
def pure_gate(wheel: WheelArchive, *, package: str) -> str:
    """Check that the wheel is tagged for every machine and holds the package, no machine code and nothing hidden."""
    tag = "-".join(wheel.path.stem.split("-")[-3:])
    own = [name for name in wheel.files if not name.startswith(f"{wheel.info}/")]
    refuse_if(
        [
            *([] if tag == PURE_TAG else [f"the wheel is tagged {tag}, not {PURE_TAG}"]),
            *(f"{name} is {what}" for name, data in wheel.files.items() if (what := _native(data)) is not None),
            *(f"{name} is no source" for name in own if name.endswith(_NO_SOURCES)),
            *(f"{name} is outside {package}" for name in own if not name.startswith(f"{package}/")),
            *(f"{name} has an executable bit" for name in sorted(wheel.runnable)),
            *([] if f"{package}/__init__.py" in wheel.files else [f"{package}/__init__.py is missing"]),
        ]
    )
    return f"{len(own)} files of {package}, no machine code"


def _native(data: bytes) -> str | None:
    return next((what for magic, what in _NATIVE.items() if data.startswith(magic)), None)


@gate("modules")
def modules_gate(wheel: WheelArchive, *, package: str, requires: Sequence[str], requires_python: str) -> str:
    """Check that every module is of the oldest Python promised, and states imports of what is in it or required alone.

    What a module imports by a text, as by importlib, is not seen: that is how it takes what may be missing.
    """
    oldest = tuple(map(int, re.findall(r"\d+", requires_python)))
    own = frozenset({package, *(Requirement(text).name.replace("-", "_") for text in requires)})
    modules = sorted(name for name in wheel.files if name.endswith(".py"))
    refuse_if(reason for name in modules for reason in _module(name, wheel.files[name], (oldest[0], oldest[1]), own))
    names = ", ".join(sorted(own))
    return f"{len(modules)} modules of Python {'.'.join(map(str, oldest))}, whose import statements name {names} alone"


def _module(name: str, data: bytes, oldest: tuple[int, int], allowed: frozenset[str]) -> Iterable[str]:
    try:
        tree = ast.parse(data, filename=name, feature_version=oldest)
    except (SyntaxError, ValueError) as error:
        yield f"{name} is not of Python {oldest[0]}.{oldest[1]}: {error}"
        return
    for node in ast.walk(tree):
        for imported in _imports(node):
            top = imported.partition(".")[0]
            if top not in allowed and top not in sys.stdlib_module_names:
                yield f"{name} imports {imported}, which the package does not require"


def _imports(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(level=0, module=str(found)):
            return [found]
        case _:
            return []


@gate("install")
def install_gate(wheel: WheelArchive, *, workspace: Workspace) -> str:
    """Check that pip installs the wheel where there is no index, and that what it installed compiles."""
    with temporary_folder(workspace.work, "install") as folder:
        site = folder / "site"
        words = ("install", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel.path)
        _run(wheel, (*module("pip"), *words), "pip refuses the wheel", workspace)
        _run(wheel, (*module("compileall"), "-q", site), "it does not compile", workspace)
        installed = {path.relative_to(site).as_posix() for path in site.rglob("*.py")}
    expected = {name for name in wheel.files if name.endswith(".py")}
    refuse_if(f"{name} was not installed" for name in sorted(expected - installed))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"pip installs {len(installed)} modules, and they compile in Python {python}"


def _run(wheel: WheelArchive, argv: Sequence[str | Path], what: str, workspace: Workspace) -> None:
    answer = run_tool(tuple(argv), name=f"install-{wheel.path.name}", workspace=workspace)
    if answer.status != 0:
        raise Refused(what, *answer.lines[-3:], f"log: {answer.log}")
