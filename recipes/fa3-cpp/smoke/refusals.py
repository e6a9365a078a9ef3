"""Every way to call that the library refuses without a device: what is changed in a good call, and what it says.

Used by the smoke tests on a GPU and by the project's own on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capi import (
    FLOAT8_E4M3,
    FLOAT16,
    INVALID_ARGUMENT,
    MISALIGNED,
    TRIMMED,
    UNSUPPORTED,
    WRONG_VERSION,
    BackwardParams,
    ForwardParams,
    Library,
    contiguous,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SOMEWHERE = 1 << 20  # an aligned address that no check follows


def good_forward(library: Library, head_dim: int = 128) -> ForwardParams:
    """A call that every profile with this head dim serves; its memory is nowhere."""
    params = library.defaults()
    problem = params.problem
    problem.batch, problem.seqlen_q, problem.seqlen_k, problem.heads, problem.heads_k = 2, 64, 96, 4, 4
    problem.head_dim = problem.head_dim_v = head_dim
    params.q = contiguous(SOMEWHERE, 64, 4, head_dim)
    params.k = contiguous(SOMEWHERE, 96, 4, head_dim)
    params.v = contiguous(SOMEWHERE, 96, 4, head_dim)
    params.out = contiguous(SOMEWHERE, 64, 4, head_dim)
    return params


def good_backward(library: Library, head_dim: int = 128) -> BackwardParams:
    """The backward call of `good_forward`."""
    forward = good_forward(library, head_dim)
    params = library.backward_defaults()
    params.problem = forward.problem
    params.q, params.k, params.v, params.out = forward.q, forward.k, forward.v, forward.out
    params.dout, params.dq, params.dk, params.dv = forward.out, forward.q, forward.k, forward.v
    params.softmax_lse = SOMEWHERE
    return params


@dataclass(frozen=True)
class Refusal:
    """A change to a good call, the status it gets, and words of the message.

    `feature` is what a profile must have for this refusal to come first; without it the status is TRIMMED.
    """

    name: str
    change: Callable[[ForwardParams], None]
    status: int
    words: str
    feature: str | None = None


def _set(path: str, value: object) -> Callable[[ForwardParams], None]:
    def change(params: ForwardParams) -> None:
        *parents, last = path.split(".")
        target: object = params
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)

    return change


def _all(*changes: Callable[[ForwardParams], None]) -> Callable[[ForwardParams], None]:
    def change(params: ForwardParams) -> None:
        for each in changes:
            each(params)

    return change


def _float8(params: ForwardParams) -> None:
    params.problem.dtype = FLOAT8_E4M3


def _pages(params: ForwardParams) -> None:
    params.page_table, params.page_table_stride, params.page_size, params.pages = SOMEWHERE, 6, 16, 12


def _appended(params: ForwardParams) -> None:
    params.k_new = contiguous(SOMEWHERE, 1, 4, 128)
    params.v_new = contiguous(SOMEWHERE, 1, 4, 128)
    params.seqlen_k_new = 1
    params.problem.seqused_k = SOMEWHERE


def _rotary(params: ForwardParams) -> None:
    params.rotary_cos = params.rotary_sin = SOMEWHERE
    params.rotary_seqlen, params.rotary_dim = 96, 64


NULLS = tuple(
    Refusal(f"null-{name}", _set(f"{name}.data", None), INVALID_ARGUMENT, f"{name} is null")
    for name in ("q", "k", "v", "out")
)
POSITIVE = ("batch", "seqlen_q", "seqlen_k", "heads", "heads_k", "head_dim", "head_dim_v")
LENGTHS = tuple(
    Refusal(f"{name}-{value}", _set(f"problem.{name}", value), INVALID_ARGUMENT, f"{name} is {value}")
    for name in POSITIVE
    for value in (0, -1)
)
STRIDES = tuple(
    Refusal(f"{name}-{which}", _set(f"{name}.{which}_stride", 4 * 128 + 4), MISALIGNED, f"the {which} stride of {name}")
    for name in ("q", "k", "v", "out")
    for which in ("batch", "row", "head")
)
POINTERS = tuple(
    Refusal(f"odd-{name}", _set(f"{name}.data", SOMEWHERE + 8), MISALIGNED, f"{name} is at")
    for name in ("q", "k", "v", "out")
)
ARGUMENTS = (
    Refusal("size", _set("size", 8), WRONG_VERSION, "params.size is 8"),
    Refusal("negative-stride", _set("q.row_stride", -512), INVALID_ARGUMENT, "the row stride of q is -512"),
    Refusal("huge-stride", _set("k.batch_stride", 1 << 50), INVALID_ARGUMENT, "the batch stride of k"),
    Refusal("flat-output", _set("out.row_stride", 0), INVALID_ARGUMENT, "the row stride of out is 0"),
    Refusal("dtype", _set("problem.dtype", 7), UNSUPPORTED, "dtype is 7"),
    Refusal("heads", _set("problem.heads_k", 3), INVALID_ARGUMENT, "does not divide heads"),
    Refusal("head-dim-multiple", _set("problem.head_dim", 100), UNSUPPORTED, "must be a multiple of 8"),
    Refusal("head-dim-float8", _all(_float8, _set("problem.head_dim", 120)), UNSUPPORTED, "multiple of 16", "FP8"),
    Refusal(
        "head-dim-large",
        _all(_set("problem.head_dim", 264), _set("problem.head_dim_v", 264)),
        UNSUPPORTED,
        "no profile has kernels for more than 256",
    ),
    Refusal("head-dims-differ", _set("problem.head_dim_v", 64), UNSUPPORTED, "head_dim is 128 and head_dim_v 64"),
    Refusal("softcap", _set("problem.softcap", -1.0), INVALID_ARGUMENT, "softcap is -1"),
    Refusal("softcap-nan", _set("problem.softcap", math.nan), INVALID_ARGUMENT, "softcap is nan"),
    Refusal("scale-nan", _set("problem.softmax_scale", math.nan), INVALID_ARGUMENT, "softmax_scale nan"),
    Refusal("window", _set("problem.window_left", -2), INVALID_ARGUMENT, "the window is (-2, -1)"),
    Refusal("chunk", _set("problem.attention_chunk", -1), INVALID_ARGUMENT, "attention_chunk is -1"),
    Refusal("margin", _set("problem.sm_margin", -1), INVALID_ARGUMENT, "sm_margin is -1"),
    Refusal("splits", _set("num_splits", 257), INVALID_ARGUMENT, "num_splits is 257"),
    Refusal(
        "splits-used",
        _all(_set("num_splits", 2), _set("problem.seqused_q", SOMEWHERE)),
        UNSUPPORTED,
        "with seqused_q but without packed queries",
        "SPLIT",
    ),
    Refusal("pack", _set("pack_gqa", 2), INVALID_ARGUMENT, "pack_gqa is 2"),
    Refusal("total-q", _set("problem.cu_seqlens_q", SOMEWHERE), INVALID_ARGUMENT, "total_q is 0", "VARLEN"),
    Refusal("total-k", _set("problem.cu_seqlens_k", SOMEWHERE), INVALID_ARGUMENT, "total_k is 0", "VARLEN"),
    Refusal(
        "too-many",
        _all(_set("problem.seqlen_q", 1 << 30), _set("problem.seqlen_k", 1 << 30)),
        UNSUPPORTED,
        "more than the kernels can count",
    ),
    Refusal("page-size", _all(_pages, _set("page_size", 0)), INVALID_ARGUMENT, "page_size is 0", "PAGEDKV"),
    Refusal("page-count", _all(_pages, _set("pages", 0)), INVALID_ARGUMENT, "pages is 0", "PAGEDKV"),
    Refusal("page-rest", _all(_pages, _set("page_size", 20)), INVALID_ARGUMENT, "in pages of 20", "PAGEDKV"),
    Refusal("page-table", _all(_pages, _set("page_table_stride", 5)), INVALID_ARGUMENT, "rows 5 apart", "PAGEDKV"),
    Refusal("batch-index", _set("batch_index_k", SOMEWHERE), INVALID_ARGUMENT, "batch_k is 0"),
    Refusal("new-nowhere", _all(_appended, _set("problem.seqused_k", None)), INVALID_ARGUMENT, "seqused_k", "APPENDKV"),
    Refusal("new-none", _all(_appended, _set("seqlen_k_new", 0)), INVALID_ARGUMENT, "seqlen_k_new is 0", "APPENDKV"),
    Refusal("new-values", _all(_appended, _set("v_new.data", None)), INVALID_ARGUMENT, "v_new is null", "APPENDKV"),
    Refusal("rotary-alone", _rotary, INVALID_ARGUMENT, "without new keys"),
    Refusal(
        "rotary-sin", _all(_appended, _rotary, _set("rotary_sin", None)), INVALID_ARGUMENT, "rotary_sin", "APPENDKV"
    ),
    Refusal(
        "rotary-dim", _all(_appended, _rotary, _set("rotary_dim", 24)), UNSUPPORTED, "rotary_dim is 24", "APPENDKV"
    ),
    Refusal("qv", _set("qv", contiguous(SOMEWHERE, 64, 4, 128)), UNSUPPORTED, "qv is for"),
)
REFUSALS = (*NULLS, *LENGTHS, *STRIDES, *POINTERS, *ARGUMENTS)

# A good call for each feature that a profile may lack, by the switch's name without DISABLE_.
NEEDING: dict[str, Callable[[ForwardParams], None]] = {
    "FP16": _set("problem.dtype", FLOAT16),
    "FP8": _float8,
    "LOCAL": _set("problem.window_left", 16),
    "SOFTCAP": _set("problem.softcap", 30.0),
    "VARLEN": _set("problem.seqused_k", SOMEWHERE),
    "SPLIT": _set("num_splits", 4),
    "PACKGQA": _set("pack_gqa", 1),
    "PAGEDKV": _pages,
    "APPENDKV": _appended,
    "HDIM256": _all(_set("problem.head_dim", 256), _set("problem.head_dim_v", 256)),
}


def expected(refusal: Refusal, switches: frozenset[str]) -> tuple[int, str]:
    """The status and words that a build of these switches gives."""
    if refusal.feature is not None and f"DISABLE_{refusal.feature}" in switches:
        return TRIMMED, f"DISABLE_{refusal.feature}"
    return refusal.status, refusal.words
