"""Every broken file of tests/data/config is refused at the right place, with the right words, by reader and schema.

`expected.txt` there lists, for each file, the lines the reader must report.
"""

import json
import shutil
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hopperforge.config.project import load_project
from hopperforge.config.schema import schema_text
from hopperforge.config.tree import parse_tree
from hopperforge.errors import InputError

ZOO = Path(__file__).parents[2] / "data" / "config"
PLACES = {
    "bases": "image/bases.yaml",
    "matrix": "matrix.yaml",
    "recipe": "recipes/small/recipe.yaml",
    "upstream": "flash-attention/upstream.yaml",
}
FILES = sorted(path for kind in PLACES for path in (ZOO / kind).glob("*.yaml"))

# What JSON Schema cannot say, and only the reader sees.
READER_ONLY = {
    # the text itself is no YAML, so an editor's YAML parser speaks first
    "matrix/control-character",
    "matrix/tab",
    "matrix/two-documents",
    "matrix/unclosed-list",
    "recipe/empty",
    "recipe/not-utf8",
    # gone once YAML is loaded: keys' quotes, second keys, aliases, tags, the way a number is written
    "matrix/alias",
    "matrix/default-toolkit-unknown",
    "matrix/duplicate-key",
    "matrix/duplicate-version",
    "matrix/fraction-for-number",
    "matrix/octal-number",
    "matrix/tag",
    "matrix/unquoted-key",
    "upstream/duplicate-switch",
    "upstream/licence-of-other-project",
    # one value against another
    "matrix/ci-of-unknown-toolkit",
    "matrix/exclusion-of-nulls",
    "matrix/exclusion-of-unknown-ptxas",
    "matrix/exclusion-of-unknown-torch",
    "matrix/floor-not-in-matrix",
    "matrix/floor-with-wheel-null",
    "matrix/floor-without-wheel",
    "matrix/image-without-origin",
    "matrix/index-cuda-not-listed",
    "matrix/ptxas-not-newer",
    "matrix/ptxas-of-other-release",
    "matrix/python-not-listed",
    "matrix/redist-without-archives",
    "matrix/release-of-other-line",
    "matrix/torch-wheel-of-other-release",
    "matrix/wheel-name-malformed",
    "matrix/wheel-of-other-minor",
    "matrix/wheel-of-other-project",
    "matrix/wheel-of-other-release",
    "matrix/wheels-without-origin",
    "recipe/name-is-not-the-folder",
    "recipe/sm80-listed-but-off",
    "recipe/sm80-on-but-not-listed",
    "recipe/unknown-default-profile",
    "recipe/unknown-pin",
    "recipe/unknown-switch",
    "recipe/unknown-switch-far",
    "upstream/sdist-of-other-project",
    "bases/tool-of-other-project",
    "bases/unknown-default",
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def expected() -> dict[str, tuple[str, ...]]:
    blocks = (ZOO / "expected.txt").read_text(encoding="utf-8").strip().split("\n\n")
    return {name: tuple(line.strip() for line in lines) for name, *lines in map(str.splitlines, blocks)}


def assemble(root: Path, files: dict[str, Path]) -> Path:
    for kind, place in PLACES.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files.get(kind, ZOO / "good" / f"{kind}.yaml"), target)
    return root


def schema_accepts(kind: str, content: bytes) -> bool:
    tree, _ = parse_tree(kind, content)
    schema = json.loads(schema_text(f"{kind}.json"))
    return tree is None or Draft202012Validator(schema).is_valid(tree.plain())


def test_every_file_has_its_expectation() -> None:
    assert set(expected()) == {name_of(path) for path in FILES}
    assert all(expected().values())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_reader_names_place_and_mistake(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_project(assemble(tmp_path, {path.parent.name: path}))
    assert caught.value.detail == expected()[name_of(path)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_schema_refuses_what_the_reader_refuses(path: Path) -> None:
    assert schema_accepts(path.parent.name, path.read_bytes()) is (name_of(path) in READER_ONLY)


@pytest.mark.parametrize("kind", PLACES)
def test_reader_and_schema_accept_the_good_files(kind: str, tmp_path: Path) -> None:
    load_project(assemble(tmp_path, {}))
    assert schema_accepts(kind, (ZOO / "good" / f"{kind}.yaml").read_bytes())


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    several = {kind: ZOO / "several" / f"{kind}.yaml" for kind in PLACES if kind != "bases"}
    with pytest.raises(InputError) as caught:
        load_project(assemble(tmp_path, several))
    assert caught.value.sentence == (
        "15 problems in flash-attention/upstream.yaml, matrix.yaml, recipes/small/recipe.yaml"
    )
    assert caught.value.detail == (
        f'flash-attention/upstream.yaml:3:13: "{"b" * 39}" is not a git hash: 40 digits of 0-9 and a-f',
        'flash-attention/upstream.yaml:14:9: missing key "url"',
        'flash-attention/upstream.yaml:15:9: unknown key "uri"; perhaps you meant "url"',
        'matrix.yaml:2:3: missing key "driver"',
        'matrix.yaml:4:5: unknown key "dirver"; perhaps you meant "driver"',
        'matrix.yaml:5:14: a whole number is expected, not "15"',
        'matrix.yaml:27:15: a string is expected; write "2.10" with its quotes',
        'recipes/small/recipe.yaml:2:6: unknown pin "v3"; the pins are v1',
        'recipes/small/recipe.yaml:7:12: a string is expected; write "1.0" with its quotes',
        'recipes/small/recipe.yaml:9:9: "statik" is none of static, shared; perhaps you meant "static"',
        'recipes/small/recipe.yaml:11:18: unknown profile "full"; the profiles are tiny, whole-set',
        'recipes/small/recipe.yaml:15:34: unknown switch "DISABLE_SM8O"; perhaps you meant "DISABLE_SM80"',
        (
            "recipes/small/recipe.yaml:16:20: sm_80 is not listed, "
            "but its code is compiled unless the switch DISABLE_SM80 is on"
        ),
        'recipes/small/recipe.yaml:22:5: duplicate key "summary", first given in line 21',
        'recipes/small/recipe.yaml:27:16: "100" is not a size, such as "27.6 MB"',
    )
