"""Rows of a bench as a GPU would give them."""

from typing import Any

from hopperforge.node.gpu.backends import Absent, Backend
from hopperforge.node.gpu.bench import Bench, Row
from hopperforge.node.gpu.clocks import Clocks, Reading
from hopperforge.node.gpu.results import Machine
from hopperforge.node.gpu.timing import Spread
from hopperforge.node.gpu.words import Shape

MACHINE = Machine("NVIDIA H200", "580.159.04", "13.0", "2.11.0+cu130", "3.12.3", "2026-11-27T22:00:00+00:00")
PEAK = 700.0


def shape(**changes: Any) -> Shape:
    """Forward, bf16, 4 sequences of 4096 tokens, 16 heads of 128, and `changes` made."""
    fields: dict[str, Any] = {"batch": 4, "seqlen": 4096, "heads": 16, "head_dim": 128, "dtype": "bf16"}
    return Shape(**(fields | {"causal": False, "direction": "forward"} | changes))


def row(backend: str = "fa3_fwd", tflops: float = 560.0, of: Shape | None = None, **changes: Any) -> Row:
    """What an implementation that gives so many TFLOP/s is measured at; quartiles at 2 % of the median."""
    at = of or shape()
    ms = at.operations / tflops / 1e9
    fields: dict[str, Any] = {
        "shape": at,
        "backend": backend,
        "times": Spread(ms, ms * 0.98, ms * 1.02, 35),
        "tflops": tflops,
        "of_matmul": tflops / PEAK,
        "error": 2e-3,
        "clocks": Clocks(1755, 1980, ("power cap",)),
        "reason": None,
    }
    return Row(**(fields | changes))


def left_out(backend: str, reason: str, of: Shape | None = None, error: float | None = None) -> Row:
    """An implementation that was not timed."""
    return Row(of or shape(), backend, None, None, None, error, None, reason)


def bench(*rows: Row) -> Bench:
    """A bench of these rows."""
    idle = Reading(1980, 31, 118.4, ("idle",))
    backend = Backend("fa3_fwd", "3.0.0", ("bf16",), backward=False, call=lambda q, _k, _v, _causal: q)
    return Bench((690.0, PEAK), (backend,), (Absent("flash_attn_2", "not installed"),), 1980, idle, idle, rows)
