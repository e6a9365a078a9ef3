"""Releases of versions, and the specifiers that metadata has of them."""

from __future__ import annotations

import re

Numbers = tuple[int, ...]


def numbers(text: str) -> Numbers:
    """Take the release of a version: (2, 11, 0) of "2.11.0+cu130", () where there is none."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def dotted(version: Numbers) -> str:
    """Write a version."""
    return ".".join(map(str, version))


def compare(left: Numbers, right: Numbers) -> int:
    """Order two releases, missing parts being 0: negative, 0 or positive."""
    length = max(len(left), len(right))
    a, b = (tuple(version) + (0,) * (length - len(version)) for version in (left, right))
    return (a > b) - (a < b)


def satisfies(version: Numbers, specifier: str) -> bool:
    """Whether a release is one of a specifier like ">=2.9,<3" or "==2.6.*"; ValueError for what is none.

    | operator | holds when                                 |
    |----------|--------------------------------------------|
    | == 2.6.* | the version begins with 2.6                |
    | == != >= <= > < | its numbers compare so, 2.6 being 2.6.0 |
    | ~= 2.6.1 | it is >= 2.6.1 and begins with 2.6         |
    """
    held = [_clause(version, part.strip()) for part in specifier.split(",") if part.strip()]
    return all(held)  # only now: a clause that is none is said even where another one fails


def _clause(version: Numbers, text: str) -> bool:
    match = re.fullmatch(r"(==|!=|>=|<=|~=|>|<)\s*(\d+(?:\.\d+)*)(\.\*)?", text)
    if match is None:
        raise ValueError(f"{text!r} is no version specifier this doctor knows")
    operator, bound = match[1], numbers(match[2])
    if match[3]:
        return _begins(version, bound) if operator == "==" else not _begins(version, bound)
    if operator == "~=":
        return compare(version, bound) >= 0 and _begins(version, bound[:-1])
    order = compare(version, bound)
    return {"==": order == 0, "!=": order != 0, ">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0}[
        operator
    ]


def _begins(version: Numbers, bound: Numbers) -> bool:
    """Whether a release begins with `bound`, missing parts being 0: 2 is one of 2.0.*."""
    return compare(version[: len(bound)], bound) == 0


def normal(name: str) -> str:
    """Write a project's name as indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()
