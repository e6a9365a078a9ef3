"""What the package of recipes/flash-attn-fp32 decides without torch, and what its kernels promise in their sources."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "flash-attn-fp32"


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fp32_torch", RECIPE / "python" / "flash_attention" / "_torch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("found", ["2.9", "2.9.1+cu128", "2.11.0a0+git5", "2.15.0", "3.0"])
def test_a_torch_that_is_new_enough_is_taken(rules: ModuleType, found: str) -> None:
    assert rules.refusal("it needs torch 2.9", needed="2.9", found=found) is None


@pytest.mark.parametrize("found", ["2.8.0+cu126", "1.13.1", "2.1.0"])
def test_an_older_torch_is_refused_with_the_command(rules: ModuleType, found: str) -> None:
    said = rules.refusal("it needs torch 2.9", needed="2.9", found=found)
    assert said == f'it needs torch 2.9 and found torch {found}: pip install "torch>=2.9"'


def test_nothing_is_summed_by_atomics_on_floats() -> None:
    """Their order differs from run to run. The one atomic draws the number of a thread block."""
    found = [
        (path.name, line.strip())
        for path in sorted((RECIPE / "kernels").iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(atomic\w+\(|red\.|atom\.)", line)
    ]
    assert found == [("backward_keys.cuh", "if (threadIdx.x == 0) *shared_number = atomicAdd(counter, 1);")]
