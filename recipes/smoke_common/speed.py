"""The shapes that are timed for gpu.json, and the floating-point operations in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pytest

# An H200 gives 400 and more on the slowest of FA3_SHAPES; kernels that lost their tensor cores or tuning fall below.
HOPPER_FLOOR = 100.0
FA3_HEADS = 16
FA3_SHAPES = [(16, 1024), (4, 4096), (1, 16384)]  # batch, seqlen


@dataclass(frozen=True)
class Timed:
    """Self-attention of one shape; `causal` counts half of the products."""

    batch: int
    seqlen: int
    heads: int
    head_dim: int
    causal: bool

    @property
    def operations(self) -> float:
        """Floating-point operations of a forward pass."""
        return 4 * self.batch * self.heads * self.seqlen**2 * self.head_dim / (2 if self.causal else 1)

    def row(self, dtype: str, tflops: float) -> dict[str, Any]:
        """One row of gpu.json's tflops."""
        return {**asdict(self), "dtype": dtype, "tflops": tflops}


over_fa3_shapes = pytest.mark.parametrize("shape", FA3_SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
