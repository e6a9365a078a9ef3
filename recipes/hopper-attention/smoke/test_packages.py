"""How the packages of kernels are called: each by a stand-in that has its signature and the definition behind it.

The stand-ins say what the packages say, FA2's +inf for the log-sum-exp of a query without keys among it. They run
anywhere; that the packages' kernels agree is for `test_numerics` on a GPU that has them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hopper_attention._backends import run_backend
from hopper_attention._machine import FUNCTIONS, NAMES, WORDS, find
from hopper_attention._words import settle
from reference import reference, within

Answer = torch.Tensor | tuple[torch.Tensor, ...]
SHAPES = [(8, 8), (3, 9), (9, 3)]
ANY: list[dict[str, Any]] = [{}, {"causal": True}, {"scale": 0.3}]
OF_HALVES: list[dict[str, Any]] = [{"window": (2, 1)}, {"window": (2, 5), "causal": True}, {"softcap": 2.0}]
CASES = [
    *((name, words) for name in ("fa3_fwd", "flash_attn_3", "flash_attn") for words in [*ANY, *OF_HALVES]),
    *(("flash_attention", words) for words in [*ANY, {"mask": True}]),
]


def by_definition(q: Any, k: Any, v: Any, *, causal: bool, window_size: tuple[int, int], **words: Any) -> Any:
    """Output and log-sum-exp, (batch, heads, seqlen_q)."""
    counts = within(q.shape[1], k.shape[1], causal=causal, window=window_size)
    return reference(q, k, v, counts=counts, **words)


def third(  # noqa: PLR0917  # the package's signature
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: torch.Tensor | None = None,
    q_descale: torch.Tensor | None = None,
    k_descale: torch.Tensor | None = None,
    v_descale: torch.Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Answer:
    """FA3's flash_attn_func."""
    assert q.stride(-1) == 1
    del qv, q_descale, k_descale, v_descale, attention_chunk, num_splits, pack_gqa, deterministic, sm_margin
    out, lse = by_definition(q, k, v, causal=causal, window_size=window_size, scale=softmax_scale, softcap=softcap)
    return (out, lse) if return_attn_probs else out


def second(  # noqa: PLR0917  # the package's signature
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Answer:
    """FA2's flash_attn_func."""
    del alibi_slopes, deterministic
    assert q.stride(-1) == 1
    assert dropout_p == 0.0
    out, lse = by_definition(q, k, v, causal=causal, window_size=window_size, scale=softmax_scale, softcap=softcap)
    return (out, lse.masked_fill(lse.isinf(), float("inf")), torch.empty(0)) if return_attn_probs else out


def in_float32(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    softmax_scale: float | None = None,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    return_lse: bool = False,
) -> Answer:
    """flash_attention of hopperforge, without packed sequences."""
    assert dropout == 0.0
    assert seed is None
    out, lse = by_definition(q, k, v, causal=causal, window_size=(-1, -1), scale=softmax_scale, bias=bias, mask=mask)
    return (out, lse) if return_lse else out


STAND_INS: dict[str, Callable[..., Any]] = {
    "fa3_fwd": third,
    "flash_attn_3": third,
    "flash_attn": second,
    "flash_attention": in_float32,
}


def test_every_package_has_its_stand_in() -> None:
    assert STAND_INS.keys() == NAMES.keys() == WORDS.keys()


@pytest.mark.parametrize("backend", STAND_INS)
def test_a_package_is_asked_for_every_word_it_is_told(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: set[str] = set()

    def listening(*tensors: torch.Tensor, **words: Any) -> torch.Tensor:
        told.update(words)
        return tensors[0]

    monkeypatch.setitem(FUNCTIONS, backend, listening)
    q, k, v = torch.randn(3, 2, 8, 4, 16)
    run_backend(
        backend,
        *(q, k, v),
        settle(
            q, k, v, causal=True, window=None, softcap=0.0, scale=None, dropout=0.0, mask=None, bias=None, lse=False
        ),
    )
    assert told == WORDS[backend]


@pytest.mark.parametrize("lse", [False, True], ids=["out", "lse"])
@pytest.mark.parametrize("lengths", SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "words"), CASES, ids=str)
def test_a_package_is_told_what_was_asked(
    backend: str, words: dict[str, Any], lengths: tuple[int, int], lse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FUNCTIONS, backend, STAND_INS[backend])
    q = torch.randn(2, lengths[0], 8, 4, dtype=torch.float64).transpose(2, 3)
    k, v = torch.randn(2, 2, lengths[1], 2, 8, dtype=torch.float64)
    asked = {"causal": False, "window": None, "softcap": 0.0, "scale": None, **words}
    asked["mask"] = torch.rand(2, 4, *lengths) > 0.3 if words.get("mask") else None
    settled = settle(q, k, v, **asked, dropout=0.0, bias=None, lse=lse)
    out, sums = run_backend(backend, q, k, v, settled)
    counts = within(*lengths, causal=asked["causal"], window=asked["window"])
    wanted, wanted_lse = reference(
        q, k, v, counts=counts, scale=asked["scale"], softcap=asked["softcap"], mask=asked["mask"]
    )
    torch.testing.assert_close(out, wanted)
    assert (sums is None) == (not lse)
    if sums is not None:
        torch.testing.assert_close(sums, wanted_lse)


@pytest.mark.parametrize("backend", STAND_INS)
def test_a_package_is_called_within_a_graph(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing between torch.compile and the package's own function breaks the graph."""

    def traced(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **words: Any) -> torch.Tensor:
        return (q @ k.transpose(-1, -2) * words["softmax_scale"]) @ v

    def step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        words = settle(
            q, k, v, causal=True, window=None, softcap=0.0, scale=None, dropout=0.0, mask=None, bias=None, lse=False
        )
        return run_backend(backend, q, k, v, words)[0]

    monkeypatch.setitem(FUNCTIONS, backend, traced)
    q, k, v = torch.randn(3, 2, 8, 4, 16)
    torch.testing.assert_close(torch.compile(step, backend="aot_eager", fullgraph=True)(q, k, v), step(q, k, v))


PROBLEMS = {
    "import flash_attention_of_nobody": "flash-attn does not import: No module named 'flash_attention_of_nobody'",
    "raise OSError('libcuda.so.1:\\n  cannot open')": "flash-attn does not import: libcuda.so.1: cannot open",
    "raise RuntimeError('registered twice')": "flash-attn does not import: registered twice",
    "": "flash-attn has no flash_attn.flash_attn_func",
    "def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, deterministic, return_attn_probs):\n"
    "    return q": "flash-attn is of another version: flash_attn_func takes no softcap",
    "def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, deterministic,\n"
    "    return_attn_probs): return q": None,
}


@pytest.mark.parametrize("source", PROBLEMS)
def test_a_package_that_cannot_be_used_says_why(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of each kind, installed for real before anything else on the path."""
    (tmp_path / "flash_attn-2.8.3.dist-info").mkdir()
    (tmp_path / "flash_attn-2.8.3.dist-info" / "METADATA").write_text("Name: flash-attn\nVersion: 2.8.3\n")
    (tmp_path / "flash_attn.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    monkeypatch.delitem(FUNCTIONS, "flash_attn", raising=False)
    found = find.__wrapped__("flash_attn")  # what was found before stays as it is
    sys.modules.pop("flash_attn", None)
    assert (found.version, found.problem) == ("2.8.3", PROBLEMS[source])
    assert (FUNCTIONS.pop("flash_attn", None) is not None) == (PROBLEMS[source] is None)
