"""FlashAttention-3 kernels for Hopper GPUs, trimmed to a profile: call them through `fa3_fwd_interface`.

Importing needs no GPU. It checks torch first, because with a torch it was not made for the compiled module would fail
with an unreadable linker message (see `fa3_fwd._torch`); then it loads that module, which registers
`torch.ops.fa3_fwd`. What a machine lacks beyond that is said by the first call (see `fa3_fwd._guard`).
"""

from __future__ import annotations

from . import _build
from ._torch import Binding, Found, mismatch

__all__ = ["__version__", "build_info"]

__version__ = _build.VERSION


def build_info() -> dict[str, object]:
    """What this package was built from: version, profile, switches, cuda, driver (the oldest), torch, torch_abi.

    `torch` is the oldest that is served where `torch_abi` is "stable", the only one where it is "per-torch".
    """
    return {
        "version": _build.VERSION,
        "profile": _build.PROFILE,
        "switches": sorted(_build.SWITCHES),
        "cuda": _build.CUDA,
        "driver": _build.DRIVER,
        "torch": _build.TORCH,
        "torch_abi": _build.TORCH_ABI,
    }


def _load() -> None:
    """Check torch, then load the compiled module; ImportError says in one sentence what was found and is needed."""
    binding = Binding(
        version=_build.VERSION,
        torch=_build.TORCH,
        per_torch=_build.TORCH_ABI == "per-torch",
        cuda=_build.CUDA,
        cxx11_abi=_build.CXX11_ABI,
    )
    needed = f"fa3-fwd {_build.VERSION} needs {binding.needed}"
    try:
        import torch  # noqa: PLC0415  # its absence gets a sentence of ours
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{needed} and found no torch: {binding.remedy}") from error
    tell_abi = getattr(torch, "compiled_with_cxx11_abi", None)  # from 2.7 on every build has the C++11 ABI
    cxx11_abi = tell_abi is None or bool(tell_abi())
    found = Found(version=torch.__version__, cuda=torch.version.cuda, cxx11_abi=cxx11_abi)
    refusal = mismatch(binding, found)
    if refusal is not None:
        raise ImportError(refusal)
    try:
        from . import _C  # noqa: F401, PLC0415  # loading it registers torch.ops.fa3_fwd
    except (ImportError, OSError) as error:
        flavour = "which is built without CUDA" if found.cuda is None else f"built for CUDA {found.cuda}"
        raise ImportError(
            f"{needed}, and its compiled module does not load with torch {found.version}, {flavour} ({error}): "
            f"install {binding.needed}, then reinstall fa3-fwd"
        ) from error


_load()
