"""Trees know their place, and hold what YAML says."""

import pytest

from hopperforge.config.problems import Problem, instead, nearest
from hopperforge.config.tree import Tree, parse_tree


def read(text: str) -> Tree:
    tree, problems = parse_tree("f.yaml", text.encode())
    assert problems == []
    assert tree is not None
    return tree


def test_plain_values() -> None:
    text = 'a: 1\nb: "1"\nc: [x, -2, true, null, 1.5]\nd: {e: 2025-12-04}\n'
    assert read(text).plain() == {
        "a": 1,
        "b": "1",
        "c": ["x", -2, True, None, 1.5],
        "d": {"e": "2025-12-04"},
    }


def test_a_number_of_another_notation_is_reported_and_still_read() -> None:
    tree, problems = parse_tree("f", b"a: 013\nb: 0x1f\n")
    assert tree is not None
    assert tree.plain() == {"a": 13, "b": 31}
    assert problems == [
        Problem("f", 1, 4, "write 013 as a plain decimal number"),
        Problem("f", 2, 4, "write 0x1f as a plain decimal number"),
    ]


@pytest.mark.parametrize("text", ["6_", "6_.", "!!int x", "!!float x", "9" * 5000], ids=lambda text: str(text[:10]))
def test_a_number_that_is_none_is_reported_and_kept_as_text(text: str) -> None:
    tree, problems = parse_tree("f", f"a: {text}\n".encode())
    assert tree is not None
    kept = text.rpartition(" ")[2]
    assert tree.plain() == {"a": kept}
    message = f"{kept[:40]} cannot be read as a number; write plain digits, or quote a text"
    assert problems == [Problem("f", 1, 4, message)]


def test_places_of_keys_and_values_count_from_one() -> None:
    value = read("a:\n  bee:   3.10\n").get("a", "bee")
    assert value is not None
    assert (value.line, value.column) == (2, 10)
    assert (value.key_line, value.key_column) == (2, 3)
    assert value.text == "3.10"


def test_an_element_of_a_list_stands_for_its_own_key() -> None:
    (_, second) = read("a: [x, y]").elements("a")
    assert (second.key_line, second.key_column) == (second.line, second.column) == (1, 8)


def test_lookups_pass_over_what_is_not_there() -> None:
    tree = read("a: text\nb: [1, x]\n")
    assert tree.get("a", "deeper") is None
    assert tree.string("b") is None
    assert tree.string("a") == "text"
    assert list(tree.items("a")) == []
    assert list(tree.elements("a")) == []
    assert [text for text, _ in tree.strings("b")] == ["x"]


def test_an_anchor_without_alias_is_harmless() -> None:
    assert read("a: &x 1\nb: &x 2\n").plain() == {"a": 1, "b": 2}


def test_infinities_are_numbers() -> None:
    assert read("a: -.inf").plain() == {"a": float("-inf")}


def test_columns_count_characters_and_not_bytes() -> None:
    tree = read("é: {ü: 1}")
    value = tree.get("é", "ü")
    assert value is not None
    assert value.column == 8


def test_nearest_ignores_case_and_gives_up_on_the_far() -> None:
    assert nearest("TROCH", ["torch", "cuda"]) == "torch"
    assert nearest("x", ["torch", "cuda"]) is None


def test_instead_lists_all_when_none_is_near() -> None:
    assert instead("toch", ["torch", "cuda"], "there are") == '; perhaps you meant "torch"'
    assert instead("x", ["torch", "cuda"], "there are") == "; there are cuda, torch"
    assert instead("x", [], "there are") == ""
