"""Checks a tree against a pydantic model and puts each refusal into one sentence at its place."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hopperforge.config.files import WORDING
from hopperforge.config.problems import Problem, instead, perhaps
from hopperforge.config.tree import Tree

Shape = TypeVar("Shape", bound=BaseModel)
_Json: TypeAlias = dict[str, Any]

_EXPECTED: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_AT_KEY: Final = frozenset({"extra_forbidden", "missing", "too_short", "union_tag_not_found"})


def check_shape(file: str, tree: Tree, model: type[Shape]) -> tuple[Shape | None, list[Problem]]:
    """Validate; the model is None when there are problems."""
    try:
        return model.model_validate(tree.plain()), []
    except ValidationError as error:
        return None, [_problem(file, tree, model, details) for details in error.errors(include_url=False)]


def _problem(file: str, tree: Tree, model: type[BaseModel], details: ErrorDetails) -> Problem:
    location, kind = details["loc"], details["type"]
    found = _find(tree, (*location, "kind") if kind == "union_tag_invalid" else location)
    nothing = found.value is None and not found.text  # YAML gives it the place of what follows
    at_key = kind in _AT_KEY or location[-1:] == ("[key]",) or nothing
    line, column = (found.key_line, found.key_column) if at_key else (found.line, found.column)
    return Problem(file, line, column, _message(details, found, model))


def _find(tree: Tree, location: Sequence[int | str]) -> Tree:
    """The tree pydantic speaks of; parts it adds (a union's tag, `[key]`, a missing key) lead nowhere."""
    for part in location:
        tree = tuple(tree.elements())[part] if isinstance(part, int) else tree.get(part) or tree
    return tree


def _message(details: ErrorDetails, found: Tree, model: type[BaseModel]) -> str:
    kind, location = details["type"], details["loc"]
    if kind in _EXPECTED:
        return _wrong_type(_EXPECTED[kind], found)
    if kind == "extra_forbidden":
        name = str(location[-1])
        return f'unknown key "{name}"{instead(name, _known_keys(model, location[:-1]), "the keys here are")}'
    if kind == "missing":
        return f'missing key "{location[-1]}"'
    return _wrong_value(kind, details, found)


def _wrong_value(kind: str, details: ErrorDetails, found: Tree) -> str:
    context = details.get("ctx", {})
    match kind:
        case "string_pattern_mismatch":
            message = f'"{details["input"]}" {WORDING[context["pattern"]]}'
        case "literal_error":
            message = _no_choice(found.text, _quoted(context["expected"]))
        case "union_tag_invalid":
            message = f"kind: {_no_choice(context['tag'], _quoted(context['expected_tags']))}"
        case "union_tag_not_found":
            message = 'missing key "kind"'
        case "too_short":
            message = "must not be empty"
        case "greater_than_equal":
            message = f"{found.text} is too small; the least is {context['ge']}"
        case _:
            message = details["msg"]
    return message


def _no_choice(text: str, known: Sequence[str]) -> str:
    """Refuse a word that is none of a few."""
    return f'"{text}" is none of {", ".join(known)}{perhaps(text, known)}'


def _quoted(text: str) -> list[str]:
    """The words between single quotes in pydantic's "'a', 'b' or 'c'"."""
    return text.split("'")[1::2]


def _wrong_type(expected: str, found: Tree) -> str:
    if expected == "a string" and isinstance(found.value, int | float):
        return f'a string is expected; write "{found.text}" with its quotes'
    return f"{expected} is expected, not {_describe(found)}"


def _describe(found: Tree) -> str:
    if found.value is None:
        return "nothing"
    if isinstance(found.value, str):
        return f'"{found.value}"'
    return "a mapping" if isinstance(found.value, Mapping) else found.text or "a list"


@functools.cache
def _schema(model: type[BaseModel]) -> _Json:
    return model.model_json_schema()


def _known_keys(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """The keys the mapping at `location` may have, read from the model's own schema."""
    root = _schema(model)
    here = root
    for part in location:
        here = _resolve(root, _below(here, part))
    return tuple(here["properties"])


def _below(schema: _Json, part: int | str) -> _Json:
    below: _Json
    if isinstance(part, int):
        below = schema["items"]
    elif "discriminator" in schema:
        below = {"$ref": schema["discriminator"]["mapping"][part]}
    elif part in schema.get("properties", {}):
        below = schema["properties"][part]
    else:  # a mapping of named things, all of one shape
        (below,) = schema["patternProperties"].values()
    return below


def _resolve(root: _Json, schema: _Json) -> _Json:
    if "anyOf" in schema:  # a value or null
        schema = schema["anyOf"][0]
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved: _Json = root["$defs"][name] if name else schema
    return resolved
