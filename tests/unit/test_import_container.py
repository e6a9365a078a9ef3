"""The import gate in containers: what a base says of its Python, and why its pip refuses a wheel."""

import json
from collections.abc import Sequence

import pytest

from hopperforge.errors import ToolError
from hopperforge.stages.framework import Target
from hopperforge.stages.import_container import read_target, refusal

BOOKWORM = Target(release="3.11.2", glibc=(2, 36), machine="x86_64")


def test_a_base_describes_its_python() -> None:
    said = json.dumps(["3.11.2", "glibc 2.36", "x86_64"])
    assert read_target(["a warning", said], "bookworm") == BOOKWORM


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["python3: not today"],
        [json.dumps(["3.11.2", None, "x86_64"])],
        [json.dumps(["3.11.2", "musl", "x86_64"])],
        [json.dumps(["3.11.2"])],
        ["7"],
    ],
)
def test_a_base_that_does_not_is_an_error(lines: Sequence[str]) -> None:
    with pytest.raises(ToolError, match="Python of base alpine does not say its version and its glibc"):
        read_target(lines, "alpine")


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        (
            ["manylinux_2_99_x86_64"],
            "the tag manylinux_2_99_x86_64 is for glibc 2.99 or newer, and bookworm has 2.36",
        ),
        (
            ["manylinux_2_38_x86_64", "manylinux_2_37_x86_64"],
            "the tag manylinux_2_37_x86_64 is for glibc 2.37 or newer, and bookworm has 2.36",
        ),
        (
            ["manylinux2014_aarch64", "manylinux_2_99_aarch64"],
            "the pip of bookworm (Python 3.11.2 with glibc 2.36) refuses the wheel",
        ),
        (["win_amd64"], "the pip of bookworm (Python 3.11.2 with glibc 2.36) refuses the wheel"),
    ],
)
def test_a_refusal_names_the_glibc_where_that_is_the_reason(tags: Sequence[str], says: str) -> None:
    assert refusal(tags, "bookworm", BOOKWORM) == says
