"""FlashAttention in float32 for any NVIDIA GPU, forward and backward: `flash_attention` and `FlashAttention`.

Importing needs no GPU. It checks torch first, for with one that is too old the compiled library would fail to load with
an unreadable linker message; then it loads that library, which registers `torch.ops.flash_attention`.
"""

from __future__ import annotations

from pathlib import Path

from . import _build
from ._torch import refusal

__all__ = ["FlashAttention", "__version__", "build_info", "flash_attention"]

__version__ = _build.VERSION


def build_info() -> dict[str, object]:
    """What this package was built from: version, profile, cuda, driver (the oldest), torch (the oldest)."""
    return {
        "version": _build.VERSION,
        "profile": _build.PROFILE,
        "cuda": _build.CUDA,
        "driver": _build.DRIVER,
        "torch": _build.TORCH,
    }


def _load() -> None:
    """Check torch, then load the compiled library; ImportError says in one sentence what was found and is needed."""
    needs = f"flash-attn-fp32 {_build.VERSION} needs a CUDA build of torch {_build.TORCH} or newer"
    try:
        import torch  # noqa: PLC0415  # its absence gets a sentence of ours
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f'{needs} and found no torch: pip install "torch>={_build.TORCH}"') from error
    said = refusal(needs, needed=_build.TORCH, found=torch.__version__)
    if said is not None:
        raise ImportError(said)
    try:
        torch.ops.load_library(Path(__file__).with_name("_C.abi3.so"))
    except OSError as error:
        flavour = "built without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        raise ImportError(
            f"{needs}, and its library does not load with torch {torch.__version__}, {flavour} "
            f'({error.__cause__ or error}): pip install "torch>={_build.TORCH}", then reinstall flash-attn-fp32'
        ) from error


_load()

from . import _operators  # noqa: E402, F401  # adds to operators that exist only now
from ._attention import FlashAttention, flash_attention  # noqa: E402
