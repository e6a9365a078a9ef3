"""The library's C interface for Python's ctypes, field by field as hopperforge/flash_attention_c.h has it."""

from __future__ import annotations

import ctypes
from pathlib import Path

OK = 0
INVALID_ARGUMENT = 1
MISALIGNED = 2
UNSUPPORTED = 3
TRIMMED = 4
WORKSPACE_TOO_SMALL = 5
NO_DEVICE = 6
WRONG_DEVICE = 7
LAUNCH_FAILED = 8
WRONG_VERSION = 9

FLOAT16, BFLOAT16, FLOAT8_E4M3 = 0, 1, 2


class Tensor(ctypes.Structure):
    """hopperforge_fa3_tensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("batch_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
    ]


class Scale(ctypes.Structure):
    """hopperforge_fa3_scale."""

    _fields_ = [("data", ctypes.c_void_p), ("batch_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64)]


class Problem(ctypes.Structure):
    """hopperforge_fa3_problem."""

    _fields_ = [
        ("dtype", ctypes.c_int),
        *((name, ctypes.c_int32) for name in ("batch", "seqlen_q", "seqlen_k", "total_q", "total_k")),
        *((name, ctypes.c_int32) for name in ("heads", "heads_k", "head_dim", "head_dim_v")),
        ("softmax_scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("causal", "window_left", "window_right", "attention_chunk", "sm_margin")),
        *((name, ctypes.c_void_p) for name in ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k")),
    ]


class ForwardParams(ctypes.Structure):
    """hopperforge_fa3_forward_params."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("problem", Problem),
        *((name, Tensor) for name in ("q", "k", "v", "out")),
        ("softmax_lse", ctypes.c_void_p),
        ("qv", Tensor),
        *((name, Scale) for name in ("q_descale", "k_descale", "v_descale")),
        ("leftpad_k", ctypes.c_void_p),
        ("batch_index_k", ctypes.c_void_p),
        ("batch_k", ctypes.c_int32),
        ("page_table", ctypes.c_void_p),
        ("page_table_stride", ctypes.c_int64),
        ("page_size", ctypes.c_int32),
        ("pages", ctypes.c_int32),
        ("k_new", Tensor),
        ("v_new", Tensor),
        ("seqlen_k_new", ctypes.c_int32),
        ("total_k_new", ctypes.c_int32),
        ("cu_seqlens_k_new", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("rotary_cos", "rotary_sin", "seqlens_rotary")),
        *((name, ctypes.c_int32) for name in ("rotary_seqlen", "rotary_dim", "rotary_interleaved")),
        *((name, ctypes.c_int32) for name in ("num_splits", "pack_gqa")),
    ]


class BackwardParams(ctypes.Structure):
    """hopperforge_fa3_backward_params."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("problem", Problem),
        *((name, Tensor) for name in ("q", "k", "v", "out", "dout")),
        ("softmax_lse", ctypes.c_void_p),
        *((name, Tensor) for name in ("dq", "dk", "dv")),
        ("deterministic", ctypes.c_int32),
    ]


class Build(ctypes.Structure):
    """hopperforge_fa3_build."""

    _fields_ = [
        ("interface_version", ctypes.c_int32),
        *((name, ctypes.c_char_p) for name in ("version", "profile", "switches", "cuda")),
    ]


class Library:
    """The shared library, loaded. Calls give a status; `name` and `message` say what it means."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.hopperforge_fa3_get_build.restype = Build
        self.c.hopperforge_fa3_status_name.restype = ctypes.c_char_p
        self.c.hopperforge_fa3_message.restype = ctypes.c_char_p
        launch = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        self.c.hopperforge_fa3_forward.argtypes = launch
        self.c.hopperforge_fa3_backward.argtypes = launch

    @property
    def build(self) -> Build:
        """What the library was built of."""
        build: Build = self.c.hopperforge_fa3_get_build()
        return build

    @property
    def message(self) -> str:
        """What the last refused call had to say."""
        text: bytes = self.c.hopperforge_fa3_message()
        return text.decode()

    def name(self, status: int) -> str:
        """The name of a status."""
        text: bytes = self.c.hopperforge_fa3_status_name(status)
        return text.decode()

    def defaults(self) -> ForwardParams:
        """Parameters of forward as the library fills them in."""
        params = ForwardParams()
        self.c.hopperforge_fa3_forward_defaults(ctypes.byref(params))
        return params

    def backward_defaults(self) -> BackwardParams:
        """Parameters of backward as the library fills them in."""
        params = BackwardParams()
        self.c.hopperforge_fa3_backward_defaults(ctypes.byref(params))
        return params

    def check(self, params: ForwardParams | BackwardParams) -> int:
        """Judge a call without a device."""
        kind = "forward" if isinstance(params, ForwardParams) else "backward"
        status: int = getattr(self.c, f"hopperforge_fa3_{kind}_check")(ctypes.byref(params))
        return status

    def workspace(self, params: ForwardParams | BackwardParams) -> tuple[int, int]:
        """The status and the bytes that a call needs."""
        kind = "forward" if isinstance(params, ForwardParams) else "backward"
        bytes_ = ctypes.c_size_t()
        status = getattr(self.c, f"hopperforge_fa3_{kind}_workspace")(ctypes.byref(params), ctypes.byref(bytes_))
        return status, bytes_.value

    def launch(self, params: ForwardParams | BackwardParams, workspace: int, bytes_: int, stream: int = 0) -> int:
        """Put a call on the stream."""
        kind = "forward" if isinstance(params, ForwardParams) else "backward"
        status: int = getattr(self.c, f"hopperforge_fa3_{kind}")(ctypes.byref(params), workspace, bytes_, stream)
        return status


def contiguous(data: int, rows: int, heads: int, head_dim: int) -> Tensor:
    """A tensor of (batch, rows, heads, head_dim) without gaps."""
    return Tensor(data, rows * heads * head_dim, heads * head_dim, head_dim)
