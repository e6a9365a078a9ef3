"""The checks before each call: the hooks `fa3_fwd_interface` calls, and what they read from torch and the driver.

What is refused, and in which words, stands in `_rules`. `Guard` keeps what it has admitted, so that an eager call pays
for one set look-up and a few comparisons.
"""

from __future__ import annotations

import ctypes
from itertools import compress
from typing import TYPE_CHECKING

import torch

from . import _build
from ._rules import (
    CALL_FEATURES,
    UNLIMITED,
    Build,
    Machine,
    UnsupportedFeatureError,
    UnsupportedGPUError,
    head_dim_too_small_for_pages,
    is_local,
    kernel_head_dims,
    require_architecture,
    require_dtype,
    require_features,
    require_head_dims,
    require_machine,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "UnsupportedFeatureError",
    "UnsupportedGPUError",
    "check_backward",
    "check_combine",
    "check_forward",
    "check_scheduler_metadata",
]


class Guard:
    """The checks before each call; remembers the (device, dtype, head dims) it has admitted.

    `machine` is asked at the first call, not at import: importing must work on a machine without a GPU.
    """

    def __init__(self, build: Build, machine: Callable[[], Machine]) -> None:
        self.build = build
        self._machine = machine
        self._admitted: set[object] = set()
        self._trims = any(build.lacks(feature) for feature in CALL_FEATURES)
        # Heads up to 128 in the (192, 128) kernel: paged KV would test the page size against another kernel's tile.
        self._narrow_pages = kernel_head_dims(build, 128, 128) == (192, 128)

    def check_forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        k_new: torch.Tensor | None = None,
        qv: torch.Tensor | None = None,
        cu_seqlens_q: torch.Tensor | None = None,
        cu_seqlens_k: torch.Tensor | None = None,
        seqused_q: torch.Tensor | None = None,
        seqused_k: torch.Tensor | None = None,
        leftpad_k: torch.Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        page_table: torch.Tensor | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = UNLIMITED,
        attention_chunk: int = 0,
        softcap: float = 0.0,
        num_splits: int = 1,
        pack_gqa: bool | None = None,
    ) -> None:
        """Refuse a forward call that these kernels cannot serve here: UnsupportedGPUError, UnsupportedFeatureError.

        Eager only, for torch.compile cannot trace it: the compiled graph runs it inside the operator instead.
        """
        head_dim, head_dim_v = q.shape[-1], v.shape[-1]
        if (q.device, q.dtype, head_dim, head_dim_v) not in self._admitted:
            self._admit(q.device, q.dtype, head_dim, head_dim_v)
        if not self._trims:
            return
        if page_table is not None and self._narrow_pages and head_dim <= 128:
            raise head_dim_too_small_for_pages(self.build, head_dim)
        limited = window_size != UNLIMITED or attention_chunk > 0
        local = limited and is_local(
            window_size,
            causal=causal,
            chunk=attention_chunk,
            seqlen_q=q.shape[1] if cu_seqlens_q is None else max_seqlen_q or 0,
            seqlen_k=_keys(k, page_table) if cu_seqlens_k is None else max_seqlen_k or 0,
        )
        ragged = cu_seqlens_q is not None or cu_seqlens_k is not None or seqused_q is not None or leftpad_k is not None
        self._require(
            paged=page_table is not None,
            append=k_new is not None,
            local=local,
            softcap=softcap != 0,
            split=num_splits > 1,
            pack_gqa=bool(pack_gqa),
            varlen=ragged or seqused_k is not None,
            qv=qv is not None,
        )

    def check_backward(self) -> None:
        """Refuse a backward pass that the profile trimmed; what the forward refused does not come this far."""
        require_features(self.build, iter(("BACKWARD",)))

    def check_scheduler_metadata(
        self,
        cache_seqlens: torch.Tensor,
        dtype: torch.dtype,
        head_dim: int,
        head_dim_v: int,
        *,
        max_seqlen_q: int,
        max_seqlen_k: int,
        max_seqlen_k_new: int = 0,
        page_size: int | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = UNLIMITED,
        attention_chunk: int = 0,
        has_softcap: bool = False,
        num_splits: int = 0,
        pack_gqa: bool | None = None,
    ) -> None:
        """Refuse metadata for a call that `check_forward` would refuse."""
        if (cache_seqlens.device, dtype, head_dim, head_dim_v) not in self._admitted:
            self._admit(cache_seqlens.device, dtype, head_dim, head_dim_v)
        local = is_local(
            window_size, causal=causal, chunk=attention_chunk, seqlen_q=max_seqlen_q, seqlen_k=max_seqlen_k
        )
        self._require(
            paged=page_size is not None,
            append=max_seqlen_k_new > 0,
            local=local,
            softcap=has_softcap,
            split=num_splits > 1,
            pack_gqa=bool(pack_gqa),
            varlen=True,
            qv=False,
        )

    def check_combine(self) -> None:
        """Refuse to combine partial results where the profile trimmed split KV."""
        require_features(self.build, iter(("SPLIT",)))

    def _require(
        self,
        *,
        paged: bool,
        append: bool,
        local: bool,
        softcap: bool,
        split: bool,
        pack_gqa: bool,
        varlen: bool,
        qv: bool,
    ) -> None:
        """Refuse the features asked for that were trimmed.

        Paged KV is refused whole: the compiled module would still take pages of some sizes for long queries, which is
        no promise to build on. qv is asked of its own kernel, as any other would ignore it. num_splits=0 stays allowed:
        the choice falls on 1 where splitting was trimmed.
        """
        asked = (paged, append, local, softcap, split, pack_gqa, varlen, qv, qv)
        if True in asked:
            require_features(self.build, compress(CALL_FEATURES, asked))

    def _admit(self, device: torch.device, dtype: torch.dtype, head_dim: int, head_dim_v: int) -> None:
        """Check what does not change from call to call, once for each device, dtype and pair of head dims."""
        require_machine(self.build, self._machine())
        if device.type != "cuda":
            raise UnsupportedGPUError(
                f"fa3-fwd needs its tensors on a GPU of {self.build.gpus}, and found one on {device}: "
                'move them, for example with .to("cuda")'
            )
        capability = torch.cuda.get_device_capability(device)
        require_architecture(self.build, capability)
        require_dtype(self.build, str(dtype))
        fp8 = dtype == torch.float8_e4m3fn
        require_head_dims(self.build, head_dim, head_dim_v, fp8=fp8, hopper=capability == (9, 0))
        self._admitted.add((device, dtype, head_dim, head_dim_v))


def _keys(k: torch.Tensor, page_table: torch.Tensor | None) -> int:
    """Most keys a sequence can have: the cache's length, or pages times page size."""
    return int(k.shape[1]) if page_table is None else int(page_table.shape[1] * k.shape[1])


def driver_version() -> int | None:
    """The CUDA version the driver serves (13000 for 13.0); None without a driver.

    Asked of the driver library itself, as torch has no public call for it and its runtime is not ours.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    answer = library.cuDriverGetVersion(ctypes.byref(version))
    return version.value if answer == 0 and version.value > 0 else None


def read_machine() -> Machine:
    """What torch and the driver say about this machine."""
    return Machine(
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        driver=driver_version(),
        devices=torch.cuda.device_count(),
    )


_GUARD = Guard(
    Build(profile=_build.PROFILE, switches=_build.SWITCHES, cuda=_build.CUDA, driver=_build.DRIVER), read_machine
)
check_forward = _GUARD.check_forward
check_backward = _GUARD.check_backward
check_scheduler_metadata = _GUARD.check_scheduler_metadata
check_combine = _GUARD.check_combine
