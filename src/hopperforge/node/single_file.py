"""The doctor as one file, put together from the modules beside this one, which is not part of it.

What a node runs is what these modules are: their texts one after another, with their imports at the top.
"""

import ast
from collections.abc import Iterable
from importlib.resources import files
from typing import Final

PARTS: Final = (
    "versions",
    "values",
    "fitting",
    "choosing",
    "mending",
    "answer",
    "ed25519",
    "signatures",
    "reading",
    "looking",
    "installed",
    "program",
)
"""In an order in which each needs only those before it."""

_OWN: Final = "hopperforge.node"
_HEAD: Final = '''\
#!/usr/bin/env python3
"""Which wheel of an index fits this machine and why, what is wrong here and how to mend it, and the command to type.

    curl -fsS URL/doctor.py | python3 - --index URL
    python3 doctor.py --index URL [--json]

The Python that runs this is the one that is looked at. Written by hopperforge out of its modules; it needs the standard
library alone, of Python 3.9 or newer, and changes nothing.

Exit codes: 0 the right wheel is installed; 20 a wheel fits and is not installed; 21 something is wrong; 22 no wheel
of the index fits; 23 the index cannot be read; 2 the arguments are wrong; 1 is a bug of this program.
"""

from __future__ import annotations

'''
_TOO_OLD: Final = """
if sys.version_info < (3, 9):
    sys.exit("doctor.py needs Python 3.9 or newer, and so does the package; this is " + sys.version.split()[0])

"""
_TAIL: Final = '\n\nif __name__ == "__main__":\n    sys.exit(main())\n'


def doctor_source() -> bytes:
    """Give the program; equal modules give equal bytes."""
    texts = {part: files(_OWN).joinpath(f"{part}.py").read_text(encoding="utf-8") for part in PARTS}
    trees = {part: ast.parse(text) for part, text in texts.items()}
    bodies = [f"{_heading(part, trees[part])}\n\n{_body(trees[part], texts[part])}" for part in PARTS]
    return (_HEAD + _imports(trees.values()) + _TOO_OLD + "\n\n".join(bodies) + _TAIL).encode()


def _heading(part: str, tree: ast.Module) -> str:
    """Make a module's description a comment."""
    lines = f"{part}: {ast.get_docstring(tree)}".splitlines()
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _body(tree: ast.Module, text: str) -> str:
    """Take what follows all imports."""
    last = max(node.end_lineno or 0 for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    return "".join(text.splitlines(keepends=True)[last:]).strip() + "\n"


def _imports(trees: Iterable[ast.Module]) -> str:
    """Join the imports of the standard library: one line for each module."""
    nodes = [node for tree in trees for node in tree.body]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    taken: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(("__future__", _OWN)):
            taken.setdefault(node.module, set()).update(alias.name for alias in node.names)
    chosen = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(taken.items())]
    return "\n".join([*(f"import {name}" for name in sorted(plain)), *chosen]) + "\n"
