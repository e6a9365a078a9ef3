"""FlashAttention-3 for JAX on Hopper GPUs: `flash_attention` with gradients, packed sequences, float8 forward.

Importing loads a library of plain C and registers its handlers with JAX. It needs no GPU, no torch, and no environment
variable. Where there is no GPU of compute capability 9.0, tracing, lowering and exporting for CUDA work, and running
says in one sentence what is missing.
"""

from __future__ import annotations

from typing import Any

from . import _build
from ._attention import (
    LSE_NAME,
    OUT_NAME,
    flash_attention,
    flash_attention_hopper_fwd,
    flash_attention_varlen,
)
from ._library import HANDLERS, UnsupportedFeatureError, load

__all__ = [
    "LSE_NAME",
    "OUT_NAME",
    "UnsupportedFeatureError",
    "__version__",
    "build_info",
    "export_checks",
    "flash_attention",
    "flash_attention_hopper_fwd",
    "flash_attention_varlen",
]

__version__ = _build.VERSION


def build_info() -> dict[str, object]:
    """What this package was built from: version, profile, switches, cuda, driver (the oldest that serves)."""
    return {
        "version": _build.VERSION,
        "profile": _build.PROFILE,
        "switches": sorted(_build.SWITCHES),
        "cuda": _build.CUDA,
        "driver": _build.DRIVER,
    }


def export_checks() -> list[Any]:
    """What jax.export.export needs as `disabled_checks`: JAX lets only calls that it knows into an artifact.

    Who runs the artifact must import fa3_jax first. The calls' attributes are kept stable within a version's major.
    """
    from jax import export  # noqa: PLC0415  # wants absl-py, which jax 0.5 does not bring

    return [export.DisabledSafetyCheck.custom_call(target) for target in HANDLERS]


load()
