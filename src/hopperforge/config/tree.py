"""YAML text as a tree of nodes that know their place.

Built from YAML's own node graph rather than from loaded values, because loading loses what a report needs: the
place of every key, the second of two equal keys, and the zero at the end of 3.10.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import ruamel.yaml
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from hopperforge.config.problems import Problem

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Scalar = str | int | float | bool | None

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_SHOWN: Final = 40
"""Characters of a value that a message quotes."""
_TEXT_TAGS: Final = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}merge"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A value with its place; lines and columns count from 1.

    `value` is a scalar, a sequence of trees, or a mapping of trees; `text` is a scalar as it was written;
    `key_line` and `key_column` are where the key that holds it stands, or the value itself.
    """

    value: "Scalar | Sequence[Tree] | Mapping[str, Tree]"
    line: int
    column: int
    text: str = ""
    key_line: int = 0
    key_column: int = 0

    def get(self, *path: str) -> "Tree | None":
        """The tree under these keys, or None where one is missing or its holder is no mapping."""
        tree = self
        for key in path:
            below = tree.value.get(key) if isinstance(tree.value, Mapping) else None
            if below is None:
                return None
            tree = below
        return tree

    def items(self, *path: str) -> "Iterator[tuple[str, Tree]]":
        """Keys and trees of the mapping under `path`; nothing if there is none."""
        tree = self.get(*path)
        if tree is not None and isinstance(tree.value, Mapping):
            yield from tree.value.items()

    def elements(self, *path: str) -> "Iterator[Tree]":
        """The trees of the list under `path`; nothing if there is none."""
        tree = self.get(*path)
        if tree is not None and isinstance(tree.value, Sequence) and not isinstance(tree.value, str):
            yield from tree.value

    def string(self, *path: str) -> str | None:
        """The string under `path`, or None if there is none or it is no string."""
        tree = self.get(*path)
        return tree.value if tree is not None and isinstance(tree.value, str) else None

    def strings(self, *path: str) -> "Iterator[tuple[str, Tree]]":
        """The strings of the list under `path`, each with its tree."""
        for tree in self.elements(*path):
            if isinstance(tree.value, str):
                yield tree.value, tree

    def plain(self) -> Plain:
        """The value without places, as JSON knows it."""
        if isinstance(self.value, Mapping):
            return {key: tree.plain() for key, tree in self.value.items()}
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            return [tree.plain() for tree in self.value]
        return self.value


def parse_tree(file: str, content: bytes) -> tuple[Tree | None, list[Problem]]:
    """Read YAML; the tree is None when the text is no YAML at all, and the problems say why."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line, column = _place(content[: error.start].decode())
        return None, [Problem(file, line, column, "this is not UTF-8 text")]
    reader = ruamel.yaml.YAML(typ="safe", pure=True)
    reader.composer.warn_double_anchors = False  # a warning on stderr has no place; aliases are refused below
    try:
        node = reader.compose(text)
    except YAMLError as error:
        return None, [_syntax_problem(file, text, error)]
    if node is None:
        return None, [Problem(file, 1, 1, "the file is empty")]
    builder = _Builder(file)
    return builder.build(node, node), builder.problems


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # YAML writes .inf and .nan
        return float(text.replace(".", ""))


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:  # 013, which YAML 1.2 reads as 13
        return int(text)


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _syntax_problem(file: str, text: str, error: YAMLError) -> Problem:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        if text[mark.index : mark.index + 1] == "\t":
            what = "a tab stands here; indent with blanks"
        return Problem(file, mark.line + 1, mark.column + 1, f"not YAML: {what}")
    if isinstance(error, ReaderError):
        line, column = _place(text[: error.position])
        return Problem(file, line, column, "not YAML: a control character stands here")
    return Problem(file, 1, 1, f"not YAML: {error}")


@dataclass(slots=True)
class _Builder:
    """Turns the node graph into a tree and keeps the problems that only the graph shows."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    seen: "dict[int, Scalar | Sequence[Tree] | Mapping[str, Tree]]" = field(default_factory=dict)

    def build(self, node: Node, key: Node) -> Tree:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        return Tree(
            value=self._value(node, key),
            line=line,
            column=column,
            text=node.value if isinstance(node, ScalarNode) else "",
            key_line=key.start_mark.line + 1,
            key_column=key.start_mark.column + 1,
        )

    def _value(self, node: Node, key: Node) -> "Scalar | Sequence[Tree] | Mapping[str, Tree]":
        if id(node) in self.seen:
            self._report(key, "aliases are not read here; write the value out")
        else:
            self.seen[id(node)] = None  # what an alias within the node itself would find
            self.seen[id(node)] = self._new_value(node)
        return self.seen[id(node)]

    def _new_value(self, node: Node) -> "Scalar | Sequence[Tree] | Mapping[str, Tree]":
        if isinstance(node, MappingNode):
            return self._mapping(node)
        if isinstance(node, SequenceNode):
            return tuple(self.build(element, element) for element in node.value)
        return self._scalar(node, node.value, str(node.tag))

    def _mapping(self, node: MappingNode) -> "dict[str, Tree]":
        trees: dict[str, Tree] = {}
        for key, value in node.value:
            name = self._key(key)
            if name is None:
                continue
            if name in trees:
                self._report(key, f'duplicate key "{name}", first given in line {trees[name].key_line}')
                continue
            trees[name] = self.build(value, key)
        return trees

    def _key(self, key: Node) -> str | None:
        if not isinstance(key, ScalarNode):
            self._report(key, "a key is a string, not a list or a mapping")
            return None
        text: str = key.value
        if key.tag not in _TEXT_TAGS:
            self._report(key, f'a key is a quoted string; write "{text}"')
        return text

    def _scalar(self, node: Node, text: str, tag: str) -> Scalar:
        match tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.casefold() in {"true", "yes", "on"}
            case "float":
                return self._read(node, text, _fraction)
            case "int":
                number = self._read(node, text, _number)
                if number != text and not _INTEGER.fullmatch(text):
                    self._report(node, f"write {text} as a plain decimal number")
                return number
            case _:
                if tag not in _TEXT_TAGS:
                    self._report(node, f"the tag {tag} is not read here")
                return text

    def _read(self, node: Node, text: str, read: Callable[[str], Scalar]) -> Scalar:
        """What YAML calls a number may be none to Python: 6_, a tag on a word, thousands of digits."""
        try:
            return read(text)
        except ValueError:
            self._report(node, f"{text[:_SHOWN]} cannot be read as a number; write plain digits, or quote a text")
            return text

    def _report(self, node: Node, message: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message))
