"""Whether the torch found is new enough, decided over plain values; needs no torch."""

from __future__ import annotations

import re


def refusal(needs: str, *, needed: str, found: str) -> str | None:
    """Say in one sentence why a torch does not fit, None if it does: `2.11.0a0+cu130` is of the release (2, 11)."""
    if _release(found) >= _release(needed):
        return None
    return f'{needs} and found torch {found}: pip install "torch>={needed}"'


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
