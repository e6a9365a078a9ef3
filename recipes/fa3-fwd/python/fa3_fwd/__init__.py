"""FlashAttention-3 kernels for Hopper GPUs, trimmed to a profile: call them through `fa3_fwd_interface`.

Importing needs no GPU. It checks torch's version first, because a torch below the floor lacks the symbols the compiled
module needs and would fail with an unreadable linker message; then it loads that module, which registers
`torch.ops.fa3_fwd`. What a machine lacks beyond that is said by the first call (see `fa3_fwd._guard`).
"""

from __future__ import annotations

import re

from . import _build

__all__ = ["__version__", "build_info"]

__version__ = _build.VERSION


def build_info() -> dict[str, object]:
    """What this package was built from: version, profile, switches, cuda, driver (the oldest), torch_floor."""
    return {
        "version": _build.VERSION,
        "profile": _build.PROFILE,
        "switches": sorted(_build.SWITCHES),
        "cuda": _build.CUDA,
        "driver": _build.DRIVER,
        "torch_floor": _build.TORCH_FLOOR,
    }


def _release(version: str) -> tuple[int, ...]:
    """Major and minor of a version: `2.11.0a0+cu130` -> (2, 11)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _load() -> None:
    """Check torch, then load the compiled module; ImportError says in one sentence what was found and is needed."""
    needed = f"fa3-fwd {_build.VERSION} needs a CUDA build of torch {_build.TORCH_FLOOR} or newer"
    try:
        import torch  # noqa: PLC0415  # its absence gets a sentence of ours
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f'{needed} and found no torch: pip install "torch>={_build.TORCH_FLOOR}"') from error
    if _release(torch.__version__) < _release(_build.TORCH_FLOOR):
        raise ImportError(f'{needed} and found torch {torch.__version__}: pip install "torch>={_build.TORCH_FLOOR}"')
    try:
        from . import _C  # noqa: F401, PLC0415  # loading it registers torch.ops.fa3_fwd
    except (ImportError, OSError) as error:
        found = torch.version.cuda
        flavour = "which is built without CUDA" if found is None else f"built for CUDA {found}"
        raise ImportError(
            f"{needed}, and its compiled module does not load with torch {torch.__version__}, {flavour} ({error}): "
            f"install a CUDA build of torch {_build.TORCH_FLOOR} or newer, then reinstall fa3-fwd"
        ) from error


_load()
