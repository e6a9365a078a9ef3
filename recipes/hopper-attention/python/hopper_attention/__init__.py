"""Attention by the fastest backend that is right for a GPU, a dtype and a call: `attention`, `explain`, `available`.

Importing needs torch alone and no GPU; the packages of kernels are imported when they are first asked about.
"""

from __future__ import annotations

from ._attention import (
    Available,
    NoBackendError,
    attention,
    available,
    explain,
    get_flash_attention_version,
    is_flash_attention_3_available,
)
from ._dilated import DilatedAttention, MultiheadDilatedAttention, dilated_attention
from ._rules import Decision, Verdict

__all__ = [
    "Available",
    "Decision",
    "DilatedAttention",
    "MultiheadDilatedAttention",
    "NoBackendError",
    "Verdict",
    "attention",
    "available",
    "dilated_attention",
    "explain",
    "get_flash_attention_version",
    "is_flash_attention_3_available",
]
