"""What a benchmark asks of a library: the benchmarks themselves need a GPU."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest


def test_the_library_is_told_the_heads_of_the_keys(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    place = project_root / "benchmarks" / "fa3_fwd_vs_peer.py"
    spec = importlib.util.spec_from_file_location("fa3_fwd_vs_peer", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    problem = SimpleNamespace()
    module.fill_sizes(problem, (4, 1024, 16, 64), (4, 2048, 2, 64), (4, 2048, 2, 128))
    assert vars(problem) == {
        "batch": 4,
        "seqlen_q": 1024,
        "seqlen_k": 2048,
        "heads": 16,
        "heads_k": 2,
        "head_dim": 64,
        "head_dim_v": 128,
    }
