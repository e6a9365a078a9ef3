"""Readers of data from outside: what fuzzing found is replayed, and each is given its seeds cut, doubled and changed.

`python -m tests.fuzz TARGET SECONDS CORPUS` looks for more.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import TARGETS, seeds, try_out

CASES = sorted((Path(__file__).parents[1] / "data" / "fuzz").glob("*/*"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name[-8:]}")
def test_what_was_found_once_is_refused_in_our_words(case: Path) -> None:
    try_out(case.parent.name, case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_seeds_and_takes_them(name: str) -> None:
    assert seeds(name)
    for seed in seeds(name):
        try_out(name, seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_cut_and_changed_are_read_or_refused(name: str) -> None:
    (seed, *_) = seeds(name)

    @settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        at=st.integers(0, len(seed)),
        gone=st.integers(0, 40),
        put=st.binary(max_size=12),
    )
    def change(at: int, gone: int, put: bytes) -> None:
        try_out(name, seed[:at] + put + seed[at + gone :])

    change()
