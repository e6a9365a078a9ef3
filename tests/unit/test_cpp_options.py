"""The options of fa3-cpp's executable: what is refused before a GPU is asked for. They need g++ and no CUDA."""

import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "fa3-cpp"
MAIN = '#include "options.h"\nint main(int count, char** words) { return parse(count, words).batch == 0; }\n'


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    (folder / "main.cpp").write_text(MAIN)
    includes = (f"-I{RECIPE / 'exec'}", f"-I{RECIPE / 'include'}")
    words = ("-std=c++17", "-Wall", "-Wextra", "-Werror", *includes, folder / "main.cpp", RECIPE / "exec/options.cpp")
    # the header's class of statuses names functions of the library, which options do not call
    subprocess.run(["g++", *words, "-ffunction-sections", "-Wl,--gc-sections", "-o", folder / "main"], check=True)
    return folder / "main"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--batch 0", "--batch: must be at least 1"),
        ("--batch -1", "--batch: must be at least 1"),
        ("--seqlen -5", "--seqlen: must be at least 1"),
        ("--seqlen-k 0", "--seqlen-k: must be at least 1"),
        ("--heads-k -2", "--heads-k: must be at least 1"),
        ("--head-dim 0", "--head-dim: must be at least 1"),
        ("--paged -4", "--paged: must be at least 0"),
        ("--repeat -1", "--repeat: must be at least 0"),
        ("--rows nan", "--rows: the value is no whole number"),
        ("--rows -1", "--rows: must be at least 0"),
        ("--seed -1", "--seed: must be at least 0"),
        ("--seqlen 3e9", "--seqlen: the value is no whole number"),
        ("--seqlen nan", "--seqlen: the value is no whole number"),
        ("--heads 4 --heads-k 3", "--heads-k: must divide --heads"),
        ("--batch", "--batch: a value is missing"),
        ("--btach 1", "--btach: is no option"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(program: Path, words: str, says: str) -> None:
    done = subprocess.run([program, *words.split()], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}\n")


@pytest.mark.parametrize("words", ["", "--batch 3 --heads 6 --heads-k 2", "--rows 0 --repeat 0 --paged 0 --splits 0"])
def test_what_can_be_meant_is_taken(program: Path, words: str) -> None:
    assert subprocess.run([program, *words.split()], check=False).returncode == 0
