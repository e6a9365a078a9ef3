"""The JSON Schemas that are checked in are those the models make; the models' versions are those model/ parses."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hopperforge.config.files import WORDING, ToolkitName, Version
from hopperforge.config.schema import COMMAND, SCHEMAS, schema_text, write_schemas
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion

CHECKED_IN = Path(__file__).parents[3] / "docs" / "reference" / "schema"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_checked_in_schema_is_the_generated_one(name: str) -> None:
    text = (CHECKED_IN / name).read_text(encoding="utf-8")
    assert text == schema_text(name), f"docs/reference/schema/{name} is out of date; run: {COMMAND}"


def test_no_other_schema_is_checked_in() -> None:
    assert {path.name for path in CHECKED_IN.iterdir()} == set(SCHEMAS)


def test_write_schemas_writes_every_one(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()} == {
        name: schema_text(name) for name in SCHEMAS
    }


def accepted_by(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except (ValueError, ValidationError):
        return False
    return True


@pytest.mark.parametrize("kind", [CudaVersion, PythonVersion, TorchVersion])
@given(text=st.one_of(st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9])?", fullmatch=True), st.text(max_size=6)))
def test_a_version_passes_the_file_exactly_if_model_parses_it(kind: type[CudaVersion], text: str) -> None:
    assert accepted_by(TypeAdapter(Version).validate_python, text) is accepted_by(kind.parse, text)


@given(
    text=st.one_of(
        st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}(\+ptxas[0-9]{1,3}\.[0-9]{1,3})?", fullmatch=True), st.text(max_size=6)
    )
)
def test_a_toolkits_name_passes_the_file_if_model_parses_it(text: str) -> None:
    passes = accepted_by(TypeAdapter(ToolkitName).validate_python, text)
    # Which of two releases is newer the pattern cannot say.
    older = (
        passes
        and "+" in text
        and CudaVersion.parse(text.split("+ptxas")[1]) <= CudaVersion.parse(text.split("+", maxsplit=1)[0])
    )
    assert accepted_by(ToolkitVersion.parse, text) is (passes and not older)


def test_every_pattern_compiles_and_is_anchored() -> None:
    assert [pattern for pattern in WORDING if not re.fullmatch(r"\^.*\$|\\S", pattern)] == []
