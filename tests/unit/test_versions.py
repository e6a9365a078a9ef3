"""Toolkits by name: what is written is what is read, and what orders and labels them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.model.versions import CudaVersion, ToolkitVersion

releases = st.builds(CudaVersion, st.integers(0, 99), st.integers(0, 99))
toolkits = st.one_of(
    releases.map(ToolkitVersion.of),
    st.tuples(releases, releases).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: ToolkitVersion(*pair)),
)


@given(toolkits)
def test_a_toolkits_text_reads_as_itself(toolkit: ToolkitVersion) -> None:
    assert ToolkitVersion.parse(str(toolkit)) == toolkit


@given(toolkits)
def test_the_label_is_that_of_the_plain_toolkit(toolkit: ToolkitVersion) -> None:
    assert toolkit.label == ToolkitVersion.of(toolkit.cuda).label == toolkit.cuda.label


def test_toolkits_ascend_by_release_then_by_ptxas() -> None:
    texts = ["12.4", "12.4+ptxas12.8", "12.4+ptxas12.9", "12.4+ptxas13.0", "12.6", "13.0", "13.2"]
    assert [str(toolkit) for toolkit in sorted(map(ToolkitVersion.parse, reversed(texts)))] == texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12.4+ptxas12.4", "'12.4+ptxas12.4' names ptxas 12.4, which is not newer than the toolkit's own"),
        ("12.4+ptxas12.3", "'12.4+ptxas12.3' names ptxas 12.3, which is not newer than the toolkit's own"),
        ("12.4+ptxas", "'' is not a CUDA version; write it as 13.0"),
        ("12.4+12.9", "'12.4+12.9' is not a CUDA version; write it as 13.0"),
        ("+ptxas12.9", "'' is not a CUDA version; write it as 13.0"),
        ("12.4+ptxas12.9+ptxas13.0", "'12.9+ptxas13.0' is not a CUDA version; write it as 13.0"),
    ],
)
def test_what_is_no_toolkit_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ToolkitVersion.parse(text)
