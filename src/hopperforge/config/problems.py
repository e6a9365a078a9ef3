"""A problem in a file or a word, and the nearest thing the writer may have meant."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake at a place: `file` relative to the project, `line` and `column` counted from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


def nearest(text: str, known: Iterable[str]) -> str | None:
    """The known name closest to `text`, letters' case aside, or None if none is close."""
    folded = {name.casefold(): name for name in sorted(known)}
    found = difflib.get_close_matches(text.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def perhaps(text: str, known: Iterable[str]) -> str:
    """The end of a refusal of `text` that names the nearest known name; empty if none is close."""
    near = nearest(text, known)
    return "" if near is None else f'; perhaps you meant "{near}"'


def instead(text: str, known: Iterable[str], plural: str) -> str:
    """The end of a refusal of `text`: the nearest known name, or else all of them after the words `plural`."""
    names = sorted(known)
    return perhaps(text, names) or (f"; {plural} {', '.join(names)}" if names else "")
