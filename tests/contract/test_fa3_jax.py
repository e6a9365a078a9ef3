"""The two sides of fa3_jax's library agree: what Python asks it with, and what its sources read."""

import ast
import re
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "fa3-jax"


def _python_fields() -> list[tuple[str, str]]:
    """The fields of `Request` in _library.py, as (name, type)."""
    module = ast.parse((RECIPE / "python" / "fa3_jax" / "_library.py").read_text(encoding="utf-8"))
    (request,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Request")
    fields = next(node.value for node in request.body if isinstance(node, ast.Assign))
    kinds = {"c_int64": "std::int64_t", "c_double": "double"}
    found = []
    for group in ast.walk(fields):
        if isinstance(group, ast.GeneratorExp):
            (kind,) = (node.attr for node in ast.walk(group.elt) if isinstance(node, ast.Attribute))
            names = ast.literal_eval(group.generators[0].iter)
            found += [(name, kinds[kind]) for name in names]
    return found


def test_request_has_the_fields_of_the_header() -> None:
    header = (RECIPE / "src" / "request.h").read_text(encoding="utf-8")
    body = header.partition("struct fa3_jax_request {")[2].partition("};")[0]
    expected = [(name, kind) for kind, name in re.findall(r"^\s*(std::int64_t|double) (\w+);$", body, re.MULTILINE)]
    assert len(expected) == 19
    assert _python_fields() == expected


def test_every_handler_and_question_is_exported_by_its_prefix() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (RECIPE / "src").glob("*.cpp"))
    library = (RECIPE / "python" / "fa3_jax" / "_library.py").read_text(encoding="utf-8")
    asked = set(re.findall(r"\bfa3_jax_(?:forward|backward|refuse|plan|message)\b", library))
    assert asked == {"fa3_jax_forward", "fa3_jax_backward", "fa3_jax_refuse", "fa3_jax_plan", "fa3_jax_message"}
    assert all(name in sources for name in asked)
    assert "global: fa3_jax_*;" in (RECIPE / "src" / "exports.map").read_text(encoding="utf-8")
