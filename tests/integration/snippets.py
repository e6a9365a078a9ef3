"""The snippets of a document, to be tried as they are."""

import re
from dataclasses import dataclass

from tests.integration.command import PROJECT

HOW_TO = PROJECT / "docs" / "how-to"


@dataclass(frozen=True)
class Block:
    """A block of code of a page: what stands behind its fence, "" where nothing does or it is an indented one."""

    line: int
    language: str
    lack: str
    body: str


def page(name: str) -> str:
    """The text of docs/how-to/NAME.md."""
    return (HOW_TO / f"{name}.md").read_text(encoding="utf-8")


def snippets(name: str, language: str) -> list[str]:
    """The fenced blocks of docs/how-to/NAME.md that are in a language."""
    return [block.body for block in blocks(page(name)) if (block.language, block.lack) == (language, "")]


def blocks(text: str) -> list[Block]:
    """All blocks of code of a page: fenced ones, as in "```sh gpu", and indented ones behind an empty line."""
    found: list[Block] = []
    fence: tuple[int, str] | None = None
    body: list[str] = []
    empty = True
    for number, line in enumerate(text.splitlines(), 1):
        if fence is None and re.match(r" {4}\S", line) and empty:
            found.append(Block(number, "", "", line.strip()))
        elif not line.startswith("```"):
            body.append(line)
        elif fence is None:
            fence, body = (number, line[3:].strip()), []
        else:
            language, _, lack = fence[1].partition(" ")
            found.append(Block(fence[0], language, lack, "".join(f"{one}\n" for one in body)))
            fence = None
        empty = not line.strip()
    return found
