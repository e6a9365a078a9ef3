"""What a unit can see of the patched source: which files, and which switches change its text.

A unit's key holds these and no more, so that a change elsewhere, or a switch that only removes other units, leaves its
object as it is. The answers lean to the safe side: every branch of every condition counts as taken, every name in a
file as used there. Where that cannot be judged (a computed include, pasted names) the answer is "everything".

docs/explanation/keys.md tells why this is right, and how much it shares.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from hopperforge.model.keys import content_key
from hopperforge.model.pack import Unit
from hopperforge.run.files import sha256_file

SWITCH_PREFIX: Final = "FLASHATTENTION_"
"""Only macros of this prefix are ever left out: neither CUTLASS, nor CUDA, nor a system header has such a name."""

_OWN: Final = "hopper"
_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_COMMENT: Final = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""", re.DOTALL)
_DIRECTIVE: Final = re.compile(r"\s*#\s*(\w+)(.*)")
_INCLUDE: Final = re.compile(r'\s*(?:"([^"]+)"|<([^>]+)>)')
_ANY_INCLUDE: Final = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)
_OTHER_INCLUDES: Final = ("-include", "--pre-include", "-isystem", "--system-include", "--include-path")
_OPENING: Final = frozenset({"if", "ifdef", "ifndef"})
# `##` makes names that stand nowhere, raw strings may hold anything, and has_include depends on what is not there.
_BEYOND_US: Final = re.compile(r'##|\bR"|__has_include|include_next')


class _Unclear(Exception):  # noqa: N818 - a state: the file holds what this module does not judge
    pass


@dataclass(slots=True)
class _File:
    """A file as the preprocessor sees it, all branches taken.

    `needs` are the names its text is made of, and those of the conditions the text stands under; `macros` the names
    that each macro it defines is made of, with those of the conditions the definition stands under.
    """

    needs: set[str] = field(default_factory=set)
    macros: dict[str, set[str]] = field(default_factory=dict)
    quoted: list[str] = field(default_factory=list)
    angled: list[str] = field(default_factory=list)


def _parse(text: str) -> _File:
    if _BEYOND_US.search(text) is not None:
        raise _Unclear
    found = _File()
    conditions: list[set[str]] = []
    # lines are joined first, as the preprocessor does; the pattern takes strings too, to know what stands inside them
    plain = _COMMENT.sub(lambda match: " " if match[0][0] == "/" else match[0], text.replace("\\\n", " "))
    for line in plain.splitlines():
        directive = _DIRECTIVE.fullmatch(line)
        if directive is None:
            names = set(_NAME.findall(line))
            if line.strip():
                found.needs |= names.union(*conditions)
        else:
            _take(directive[1], directive[2], conditions, found)
    if conditions:
        raise _Unclear
    return found


def _take(word: str, rest: str, conditions: list[set[str]], found: _File) -> None:
    """Take a directive into account; a condition counts only for what stands under it."""
    names = _NAME.findall(rest)
    if word in _OPENING:
        conditions.append(set(names))
    elif word in {"elif", "else", "endif"} and not conditions:
        raise _Unclear
    elif word == "elif":
        conditions[-1].update(names)
    elif word == "endif":
        conditions.pop()
    elif word in {"define", "undef"} and names:
        found.macros.setdefault(names[0], set()).update(names[1:], *conditions)
    elif word == "include":
        found.needs.update(*conditions)
        target = _INCLUDE.match(rest)
        if target is None:
            raise _Unclear
        (found.quoted if target[1] else found.angled).append(target[1] or target[2])
    elif word != "else":
        found.needs.update(names, *conditions)


class SourceView:
    """The patched source below `root`, for questions about its units; files are read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parsed: dict[Path, _File] = {}
        self._hashes: dict[Path, str] = {}
        self._includes: dict[tuple[Path, tuple[Path, ...]], Sequence[Path]] = {}
        self._named: dict[str, bool] = {}
        self._shadows: dict[Path, list[Path]] = {}

    def settle(self, unit: Unit) -> Unit:
        """Give a unit the hash over all it can include, and leave switches out that change nothing in it.

        What cannot be judged comes back as it was, and its key holds the whole source and every switch.
        """
        try:
            files = self._closure(unit)
        except _Unclear:
            return unit
        switches = {macro for macro in map(_macro, unit.arguments) if macro is not None}
        unused = switches - self._used(files, switches)
        return replace(
            unit,
            arguments=tuple(argument for argument in unit.arguments if _macro(argument) not in unused),
            sees=self._hash(files),
        )

    def _closure(self, unit: Unit) -> frozenset[Path]:
        """Every file of upstream's own that the unit can include; the third party's count as a whole."""
        places = tuple(self._root / place for place in _include_places(unit.arguments))
        found: set[Path] = set()
        queue = [self._root / unit.path, *self._named_by_others(places)]
        while queue:
            path = queue.pop()
            if path in found:
                continue
            found.add(path)
            queue += self._included(path, places)
        return frozenset(found)

    def _included(self, path: Path, places: tuple[Path, ...]) -> Sequence[Path]:
        """Upstream's own files that a file includes; those of nobody we have are the toolkit's or the system's."""
        if (path, places) not in self._includes:
            file = self._file(path)
            targets = [_first(name, (path.parent, *places)) for name in file.quoted]
            targets += [_first(name, places) for name in file.angled]
            own = [target for target in targets if target is not None and self._is_own(target)]
            self._includes[path, places] = own
        return self._includes[path, places]

    def _used(self, files: Iterable[Path], switches: Iterable[str]) -> frozenset[str]:
        """The switches that text of these files, or of the third party's, is made of or stands under."""
        parsed = [self._file(path) for path in files]
        macros: dict[str, set[str]] = {}
        for file in parsed:
            for name, names in file.macros.items():
                macros.setdefault(name, set()).update(names)
        reached = _reach(set().union(*(file.needs for file in parsed)), macros)
        # what the third party names is used too, be it a macro of upstream's that stands under a switch
        theirs = {name for name in macros.keys() | set(switches) if self._others_name(name)}
        reached |= _reach(theirs, macros)
        return frozenset(reached & set(switches))

    def _file(self, path: Path) -> _File:
        if path not in self._parsed:
            self._parsed[path] = _parse(path.read_text(encoding="utf-8", errors="replace"))
        return self._parsed[path]

    def _is_own(self, path: Path) -> bool:
        return path.is_relative_to(self._root / _OWN)

    @cached_property
    def _others(self) -> Mapping[Path, bytes]:
        """All files that are not upstream's own, CUTLASS above all."""
        paths = sorted(path for path in self._root.rglob("*") if path.is_file() and not self._is_own(path))
        return {path: path.read_bytes() for path in paths}

    def _others_name(self, name: str) -> bool:
        """Whether the letters of `name` stand anywhere in the third party's files."""
        if name not in self._named:
            self._named[name] = any(name.encode() in content for content in self._others.values())
        return self._named[name]

    @cached_property
    def _others_includes(self) -> frozenset[str]:
        return frozenset(name.decode() for content in self._others.values() for name in _ANY_INCLUDE.findall(content))

    def _named_by_others(self, places: Sequence[Path]) -> Iterator[Path]:
        """Files of upstream's own that stand where the third party's includes are looked for."""
        for place in filter(self._is_own, places):
            if place not in self._shadows:
                self._shadows[place] = [place / name for name in self._others_includes if (place / name).is_file()]
            yield from self._shadows[place]

    def _hash(self, files: Iterable[Path]) -> str:
        own = {path.relative_to(self._root).as_posix(): self._sha256(path) for path in files}
        return content_key("view", {"own": own, "others": self._others_hash})

    def _sha256(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]

    @cached_property
    def _others_hash(self) -> str:
        return content_key(
            "others",
            {
                path.relative_to(self._root).as_posix(): hashlib.sha256(content).hexdigest()
                for path, content in self._others.items()
            },
        )


def _reach(names: Iterable[str], macros: Mapping[str, Iterable[str]]) -> set[str]:
    """All names that `names` come to when every macro among them is replaced by what it is made of."""
    reached: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += macros.get(name, ())
    return reached


def _macro(argument: str) -> str | None:
    """The switch that an argument defines, None if it is no definition of a switch."""
    name = argument.removeprefix("-D").partition("=")[0]
    return name if argument.startswith("-D") and name.startswith(SWITCH_PREFIX) else None


def _include_places(arguments: Sequence[str]) -> list[str]:
    """The folders of -I, as upstream writes them; any other way to add files is beyond us."""
    places = [argument.removeprefix("-I") for argument in arguments if argument.startswith("-I")]
    if "" in places or any(argument.startswith(_OTHER_INCLUDES) for argument in arguments):
        raise _Unclear
    return places


def _first(name: str, places: Sequence[Path]) -> Path | None:
    """The file that an include of `name` finds first, its path without links and dots; None if it is outside."""
    found = next((place / name for place in places if (place / name).is_file()), None)
    return None if found is None else Path(*_undotted(found.parts))


def _undotted(parts: Sequence[str]) -> Iterator[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return iter(kept)
