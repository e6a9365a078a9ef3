"""What a call asks for beside its arrays: plain values, hashable, so that each combination is traced once."""

from __future__ import annotations

import math
from dataclasses import dataclass

UNLIMITED = (-1, -1)
MOST_SPLITS = 256


@dataclass(frozen=True)
class Options:
    """The static part of a call.

    `lengths` are the longest sequence of queries and of keys where sequences are packed, None where they are not.
    `descaled` says that three float32 arrays of descales follow the operands.
    """

    softmax_scale: float
    causal: bool = False
    window: tuple[int, int] = UNLIMITED
    softcap: float = 0.0
    num_splits: int = 1
    deterministic: bool = False
    lengths: tuple[int, int] | None = None
    descaled: bool = False


def make_options(
    head_dim: int,
    *,
    softmax_scale: float | None,
    causal: bool,
    window: tuple[int, int] | None,
    softcap: float,
    num_splits: int = 1,
    deterministic: bool = False,
    lengths: tuple[int, int] | None = None,
    descaled: bool = False,
) -> Options:
    """Options from the arguments of a call; TypeError and ValueError say which argument is wrong and how."""
    scale = head_dim**-0.5 if softmax_scale is None else static_number("softmax_scale", softmax_scale)
    cap = static_number("softcap", softcap)
    splits = static_integer("num_splits", num_splits)
    if not scale > 0 or math.isinf(scale):
        raise ValueError(f"softmax_scale must be above 0 and finite, and is {scale}")
    if not cap >= 0 or math.isinf(cap):
        raise ValueError(f"softcap must be 0 (none) or above and finite, and is {cap}")
    if not 1 <= splits <= MOST_SPLITS:
        raise ValueError(
            f"num_splits must be from 1 to {MOST_SPLITS}, and is {splits}: the workspace is sized while tracing, "
            "where no GPU may be to choose a number for"
        )
    return Options(
        softmax_scale=scale,
        causal=bool(causal),
        window=_window(window),
        softcap=cap,
        num_splits=splits,
        deterministic=bool(deterministic),
        lengths=None if lengths is None else _lengths(lengths),
        descaled=descaled,
    )


def static_number(name: str, value: object) -> float:
    """A number that is known while tracing; TypeError for an array that is traced."""
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number raises, which is the point
    except TypeError as error:
        raise TypeError(_must_be_known(name, value)) from error


def static_integer(name: str, value: object) -> int:
    """An integer that is known while tracing; TypeError for a traced array and for a fraction."""
    try:
        return int(value.__index__())  # type: ignore[attr-defined]  # what is no integer raises, which is the point
    except (AttributeError, TypeError) as error:
        raise TypeError(_must_be_known(name, value)) from error


def _must_be_known(name: str, value: object) -> str:
    return (
        f"{name} must be a Python number that is known while tracing, and is of type {type(value).__name__}: "
        "close over it, or name it in static_argnames of jax.jit"
    )


def _window(window: tuple[int, int] | None) -> tuple[int, int]:
    """The window as kernels take it; -1 is no limit."""
    if window is None:
        return UNLIMITED
    if len(window) != 2:
        raise ValueError(f"window must be (left, right), and is {window}")
    left, right = (static_integer("window", side) for side in window)
    if left < -1 or right < -1:
        raise ValueError(f"each side of window must be -1 (no limit) or a number of keys, and window is {window}")
    return left, right


def _lengths(lengths: tuple[int, int]) -> tuple[int, int]:
    names = ("max_seqlen_q", "max_seqlen_k")
    queries, keys = (static_integer(name, length) for name, length in zip(names, lengths, strict=True))
    if queries < 1 or keys < 1:
        raise ValueError(f"max_seqlen_q and max_seqlen_k must be at least 1, and are {queries} and {keys}")
    return queries, keys
