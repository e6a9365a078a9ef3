"""No decision reads a wall clock: those of several machines never agree. What waits counts monotonic seconds."""

import ast
from collections.abc import Iterator
from pathlib import Path

READERS = {("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("datetime", "now"), ("datetime", "utcnow")}


def wall_clocks(text: str) -> Iterator[str]:
    """Name every reading of a wall clock in Python source."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in READERS:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{alias.name}" for alias in node.names if ("time", alias.name) in READERS)


def test_only_the_command_lines_read_a_wall_clock(project_root: Path) -> None:
    source = project_root / "src" / "hopperforge"
    found = {
        path.relative_to(source).as_posix(): readings
        for path in source.rglob("*.py")
        if (readings := list(wall_clocks(path.read_text(encoding="utf-8"))))
    }
    # doctor and bench are programs of their own, and a key's end is a time that people agreed on
    own = ("cli.py", "node/program.py", "node/gpu/command.py")
    assert found == {name: ["datetime.now"] for name in own}


def test_a_reading_would_be_found() -> None:
    assert list(wall_clocks("import time\nage = time.time() - 3")) == ["time.time"]
    assert list(wall_clocks("from time import time")) == ["time.time"]
    assert list(wall_clocks("import time\nage = time.monotonic()")) == []
