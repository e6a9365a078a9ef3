"""verify-install as a node runs it, before a fake driver, a fake torch, and kernels that end their process."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.fake_node import H100, smi, torch
from tests.unit.node_zoo import OURS, distribution

from hopperforge.node.gpu.single_program import node_program
from hopperforge.stages.attest import make_keys

pytestmark = pytest.mark.integration

TORCH_130 = b"__version__ = '2.11.0+cu130'\ncuda = '13.0'\n"
KERNELS = b"""import os

def flash_attn_func(q, k, v, causal=False):
    os.abort()
"""
# as much of torch as the way to the kernels asks for
STAND_IN = """
import contextlib
float16 = bfloat16 = float32 = float64 = 'a dtype'
no_grad = contextlib.nullcontext
class Generator:
    def __init__(self, device): pass
    def manual_seed(self, seed): return self
class Tensor:
    def to(self, dtype): return self
    def requires_grad_(self, wanted): return self
def randn(*size, **named): return Tensor()
"""


def node(home: Path, interface: bytes) -> None:
    """A healthy node with a package whose kernels are `interface`."""
    smi(home, H100)
    torch(home, STAND_IN, TORCH_130)
    package = {"fa3_fwd/__init__.py": b"", "fa3_fwd_interface.py": interface}
    distribution(home / "site", "fa3-fwd", "3.0.0", OURS | package)
    (home / "node.pyz").write_bytes(node_program())


def verify(home: Path, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    environment = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(home / "site")}
    done = subprocess.run(
        [sys.executable, "-S", home / "node.pyz", "verify-install", *words, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == done.returncode
    return done.returncode, {link["name"]: link for link in answer["links"]}


def test_kernels_that_crash_are_an_answer_and_all_before_them_holds(tmp_path: Path) -> None:
    node(tmp_path, KERNELS)
    status, links = verify(tmp_path)
    assert status == 10
    assert [name for name, link in links.items() if link["state"] == "ok"] == [
        *("GPU", "driver", "CUDA", "torch", "wheel", "import")
    ]
    assert links["numbers"]["state"] == "FAILED"
    assert "the process died with status -6" in links["numbers"]["what"]
    assert links["speed"]["state"] == "not checked"


def test_a_package_that_cannot_be_imported_is_never_run(tmp_path: Path) -> None:
    node(tmp_path, b"raise ImportError('undefined symbol: aoti_torch')\n")
    status, links = verify(tmp_path)
    assert status == 21
    assert "undefined symbol: aoti_torch" in links["import"]["what"]
    assert links["numbers"]["state"] == "not checked"


def test_with_a_key_nothing_of_a_package_runs_that_is_not_proven(tmp_path: Path) -> None:
    node(tmp_path, f"open({str(tmp_path / 'was run')!r}, 'w')\n".encode())
    _, public = make_keys(tmp_path / "keys", "release", now=datetime.now(UTC), days=1)
    status, links = verify(tmp_path, "fa3-fwd", f"key={public}")
    assert status == 12
    assert {links[name]["state"] for name in ("signature", "import", "numbers", "speed")} == {"not checked"}
    assert not (tmp_path / "was run").exists()
    verify(tmp_path)
    assert (tmp_path / "was run").exists()


def test_no_driver_leaves_the_kernels_unchecked(tmp_path: Path) -> None:
    node(tmp_path, KERNELS)
    (tmp_path / "bin" / "nvidia-smi").unlink()
    status, links = verify(tmp_path)
    assert status == 10
    assert {name for name, link in links.items() if link["code"] == 10} == {"GPU", "driver", "numbers", "speed"}
    assert links["import"]["state"] == "ok"
