"""Every command of the guides in docs/how-to is typed by a test, or is marked with what it needs and no test has.

A block of code begins with "```sh", and tests/integration/test_guides.py types it; or with "```sh gpu" and the like.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.integration.snippets import HOW_TO, Block, blocks, page

from hopperforge.cli import VERBS
from hopperforge.node.gpu.words import parse_bench, parse_memory, parse_verify

TYPED_ELSEWHERE = {
    *("air-gapped", "attention", "cluster", "cpp", "jax", "node", "prove", "publish", "serve", "share-objects"),
    *("upload-servers", "verify"),
}
"""Older pages, whose commands the tests of what they are about type."""
GUIDES = sorted({path.stem for path in HOW_TO.glob("*.md")} - TYPED_ELSEWHERE)
LACKS = {
    "gpu": "a GPU, torch and the package",
    "cluster": "several machines",
    "network": "downloads from elsewhere",
    "index": "an index: tests/integration/test_index_clients.py types it",
}
LANGUAGES = {"sh": {"", *LACKS}, "python": {"gpu"}, "json": {""}, "dockerfile": {""}, "text": {""}}
PARSERS: dict[str, Callable[[Sequence[str]], object]] = {
    "bench": parse_bench,
    "memory": parse_memory,
    "verify-install": parse_verify,
}


def unmarked(text: str) -> list[str]:
    """Name the blocks that say no language that is known here, or lack what is not."""
    return [
        f"line {block.line}: {f'```{block.language} {block.lack}'.rstrip()}: {block.body.splitlines()[0]}"
        for block in blocks(text)
        if block.lack not in LANGUAGES.get(block.language, ())
    ]


@pytest.mark.parametrize("name", GUIDES)
def test_every_block_is_typed_or_says_what_it_needs(name: str) -> None:
    assert unmarked(page(name)) == []


@pytest.mark.parametrize(
    "text",
    ["```\nnox -s build\n```\n", "\n    nox -s build\n", "```sh later\nnox -s build\n```\n", "```python\nx\n```\n"],
)
def test_a_command_that_nothing_types_and_nothing_marks_is_found(text: str) -> None:
    assert len(unmarked(text)) == 1


def test_blocks_are_read_whole_and_lists_are_none() -> None:
    text = "- a list\n    that goes on\n\n```sh gpu\nfirst\n\n    second\n```\n"
    assert blocks(text) == [Block(4, "sh", "gpu", "first\n\n    second\n")]


def test_there_are_guides_and_every_mark_is_used() -> None:
    assert {"install", "profiles", "cuda-mismatch", "compile-memory", "other-gpus", "fp8", "deepspeed"} < set(GUIDES)
    used = {block.lack for name in GUIDES for block in blocks(page(name))}
    assert used == {"", *LACKS}


@pytest.mark.parametrize("name", GUIDES)
def test_what_is_not_run_is_at_least_of_its_language(name: str) -> None:
    for block in blocks(page(name)):
        match block.language:
            case "python":
                compile(block.body, name, "exec")
            case "json":
                json.loads(block.body)
            case "dockerfile":
                assert block.body.startswith(("FROM ", "ARG "))
            case _:
                pass


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Give verbs and words of every line that runs hopperforge, by nox or out of one file."""
    for block in blocks(text):
        for line in block.body.splitlines() if block.language == "sh" else ():
            match = re.search(r"nox -s ([\w-]+)(?: -- (.*))?$|node\.pyz ([\w-]+)(?: (.*))?$", line)
            if match:
                yield match[1] or match[3], shlex.split(match[2] or match[4] or "")


@pytest.mark.parametrize("name", GUIDES)
def test_verbs_and_words_are_those_there_are(name: str) -> None:
    for verb, words in _commands(page(name)):
        assert verb in VERBS
        if verb in PARSERS:
            own = ("program=", "interpreter=", "--json")
            PARSERS[verb]([word for word in words if not word.startswith(own)])


@pytest.mark.parametrize("name", GUIDES)
def test_pages_that_are_named_exist(name: str, project_root: Path) -> None:
    named = re.findall(r"`((?:docs|recipes|tests|examples)/[\w./-]+\.\w+)`", page(name))
    assert [path for path in named if not (project_root / path).is_file()] == []
