"""Merging: which sources go into one unit, whatever the machine and the order they are listed in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.unit_zoo import FEATURES, forward_units, recipe_rules

from hopperforge.merging import family, merge_units
from hopperforge.model.pack import Unit, unit_key
from hopperforge.model.recipe import MergeRule
from hopperforge.stages.kernels import wrapper_text

RULE = MergeRule(name="any", units="a_*", vary=("x", "y"), largest=2)


def units(*names: str, arguments: tuple[str, ...] = ()) -> list[Unit]:
    return [Unit(path=f"hopper/{name}.cu", arguments=arguments) for name in names]


def sources(merged: Sequence[Unit]) -> list[tuple[str, ...]]:
    return [tuple(Path(source).stem for source in unit.sources) for unit in merged]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flash_fwd_hdim128_bf16_sm90", "flash_fwd_hdim128_bf16_sm90"),
        ("flash_fwd_hdim128_bf16_split_softcap_sm90", "flash_fwd_hdim128_bf16_sm90"),
        ("flash_fwd_hdim128_bf16_softcapall_sm90", "flash_fwd_hdim128_bf16_softcapall_sm90"),
    ],
)
def test_a_family_is_a_name_without_the_words_that_vary(name: str, expected: str) -> None:
    assert family(name, MergeRule(name="any", units="*", vary=("split", "softcap"), largest=2)) == expected


def test_units_that_differ_in_words_that_vary_are_merged_and_the_rest_stays() -> None:
    rule = replace(RULE, largest=9)
    assert sources(merge_units(units("a_x_1", "b_x_1", "a_1", "a_2", "a_x_y_1"), (rule,))) == [
        ("a_2",),
        ("b_x_1",),
        ("a_1", "a_x_1", "a_x_y_1"),
    ]


def test_a_merged_unit_tells_how_many_sources_it_has_and_keeps_their_arguments() -> None:
    (merged,) = merge_units(units("a_x_1", "a_1", arguments=("-DX",)), (RULE,))
    assert merged.path.startswith("merged/a_1-x2-")
    assert merged.merged == merged.sources == ("hopper/a_1.cu", "hopper/a_x_1.cu")
    assert merged.arguments == ("-DX",)
    assert units("a_1")[0].sources == ("hopper/a_1.cu",)


def test_a_merged_unit_sees_what_its_sources_see() -> None:
    plain, other = units("a_1", "a_x_1")

    def seen(*views: str) -> str:
        (made,) = merge_units([replace(plain, sees=views[0]), replace(other, sees=views[1])], [RULE])
        return made.sees

    assert seen("a", "b") == seen("a", "b") != seen("a", "c")
    assert seen("a", "") == ""  # one that is not known is all of the source


def test_units_of_other_arguments_stay_apart() -> None:
    mixed = [*units("a_1", arguments=("-DX",)), *units("a_x_1")]
    assert merge_units(mixed, (RULE,)) == tuple(sorted(mixed))


def test_a_family_too_large_is_parted_evenly_and_first_by_the_first_word() -> None:
    family_of_four = units("a_x_1", "a_y_1", "a_1", "a_x_y_1")
    assert set(sources(merge_units(family_of_four, (RULE,)))) == {("a_x_1", "a_x_y_1"), ("a_1", "a_y_1")}
    assert [len(found) for found in sources(merge_units(family_of_four, (replace(RULE, largest=3),)))] == [2, 2]


def test_the_first_rule_that_matches_counts_and_one_keeps_each_by_itself() -> None:
    alone = MergeRule(name="alone", units="a_*_2", vary=("x",), largest=1)
    given_units = units("a_1", "a_x_1", "a_z_2", "a_x_z_2")
    assert sources(merge_units(given_units, (alone, RULE))) == [("a_x_z_2",), ("a_z_2",), ("a_1", "a_x_1")]
    assert merge_units(given_units, ()) == tuple(sorted(given_units))


@settings(max_examples=20, deadline=None)
@given(st.permutations(forward_units()))
def test_the_order_of_units_changes_nothing(shuffled: list[Unit]) -> None:
    assert merge_units(shuffled, recipe_rules()) == merge_units(forward_units(), recipe_rules())


def test_the_recipe_merges_the_profile_fa3_fwd_into_32_units_of_the_same_sources() -> None:
    apart = forward_units()
    merged = merge_units(apart, recipe_rules())
    assert len(apart) == 96
    assert Counter(source for unit in merged for source in unit.sources) == Counter(unit.path for unit in apart)
    assert Counter(len(unit.sources) for unit in merged) == {1: 18, 3: 2, 6: 12}
    assert len({unit.name for unit in merged}) == len(merged)
    for unit in merged:
        words = {frozenset(Path(source).stem.split("_")) - {"split", "softcap", "packgqa"} for source in unit.sources}
        assert len(words) == 1, f"{unit.name} mixes head dimensions or types"


def test_a_profile_with_fewer_features_has_smaller_units() -> None:
    plain = [unit for unit in forward_units() if not any(word in unit.name for word in ("softcap", "split"))]
    sizes = Counter(len(unit.sources) for unit in merge_units(plain, recipe_rules()))
    assert sizes == {1: 2 + 2, 2: 13}


def test_the_sources_and_their_order_are_in_the_key() -> None:
    def key(unit: Unit) -> str:
        told = replace(unit, arguments=(*unit.arguments, wrapper_text(unit)))
        return unit_key(told, kernel_tree="t", toolkit_key="k", compiler_key="c", image="i")

    (merged,) = merge_units(units("a_1", "a_x_1"), (RULE,))
    assert merged.merged
    keys = {key(unit) for unit in (merged, replace(merged, merged=merged.merged[::-1]), *units("a_1", "a_x_1"))}
    assert len(keys) == 4


def test_the_wrapper_includes_each_source_once_in_the_units_order() -> None:
    (merged,) = merge_units(units("a_1", "a_x_1"), (RULE,))
    includes = [line for line in wrapper_text(merged).splitlines() if line.startswith("#")]
    assert includes == ['#include "hopper/a_1.cu"', '#include "hopper/a_x_1.cu"']


def test_every_feature_of_the_zoo_is_one_upstream_has() -> None:
    assert set("_".join(FEATURES).split("_")) - {""} == {"packgqa", "softcap", "split"}
