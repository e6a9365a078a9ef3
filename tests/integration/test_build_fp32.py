"""Kernels of a recipe's own, all the way: compiled, bound by torch's stable ABI, and imported by a real CUDA torch.

The profile is the one that CI has time for: half a minute of compiling on two idle cores.
"""

import json
from pathlib import Path

import pytest
from tests.integration.command import MakeHome, hopperforge

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

WORDS = ("recipe=flash-attn-fp32", "profile=t4-h100", "cuda=13.0", "torch=2.11", "toolkit=registry", "engine=host")


@pytest.fixture(scope="module")
def home(make_home: MakeHome) -> Path:
    return make_home("fp32")


@pytest.fixture(scope="module")
def wheel(home: Path) -> Path:
    ended = hopperforge("build", *WORDS, home=home)
    assert ended.status == 0, ended.err
    (build,) = json.loads((home / "wheelhouse" / "report.json").read_text())["builds"]
    assert build["units_compiled"] == 9
    return Path(build["wheel"])


def test_every_gate_was_passed(wheel: Path) -> None:
    """The library has machine code for both GPUs and PTX for newer ones, and shows the C interface alone."""
    record = json.loads(Path(f"{wheel}.json").read_text())
    assert all(gate["passed"] for gate in record["gates"])
    assert {"abi3", "architectures", "exports", "needed", "paths"} <= {gate["name"] for gate in record["gates"]}


def test_torch_imports_it_without_a_gpu_and_is_told_what_is_missing(home: Path, wheel: Path) -> None:
    ended = hopperforge("verify", f"wheel={wheel}", "torch=2.11", home=home)
    assert ended.status == 0, ended.err
    assert "import with torch 2.11" in ended.out
