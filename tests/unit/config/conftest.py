"""The good project of the zoo, to be read and to be spoiled."""

import shutil
from pathlib import Path

import pytest

GOOD = Path(__file__).parents[2] / "data" / "config" / "good"
PLACES = {"bases": "image", "matrix": ".", "recipe": "recipes/small", "upstream": "flash-attention"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of the good files, in a folder of its own."""
    for name, place in PLACES.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(GOOD / f"{name}.yaml", tmp_path / place)
    return tmp_path
