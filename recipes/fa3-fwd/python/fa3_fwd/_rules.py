"""What a build of these kernels can and cannot do, decided over plain values; needs no torch.

Each `require_*` function returns for what the kernels serve and otherwise raises one sentence: what was found, what is
needed, what to install. `_guard` asks them before a call.

They matter because the kernels answer badly themselves: a GPU of another architecture ends the whole process (`exit(1)`
after "no kernel image"), and a value head dim whose kernel was not compiled runs a narrower one that leaves columns of
the output unwritten. The rest of what a profile trims the compiled module refuses as well, but without saying which
profile has it. Not here: shapes, strides and matching dtypes, which the compiled module checks with clear words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD_DIMS = (64, 96, 128, 192, 256)
UNLIMITED = (-1, -1)
OLDEST_WHEEL_CUDA = 12000  # sm_90a needs a CUDA 12 toolkit, so no wheel serves an older driver

# feature -> what it is, and how a call asks for it; the switch is DISABLE_<feature>
FEATURES = {
    "APPENDKV": ("appending to the KV cache", "new keys (k) were given"),
    "BACKWARD": ("the backward pass", "a gradient was asked for"),
    "FP16": ("float16", "q is torch.float16"),
    "FP8": ("float8", "q is torch.float8_e4m3fn"),
    "HDIM64": ("head dim 64", "qv or wider value heads were given"),
    "HDIMDIFF64": ("value head dims above 64 beside head dims up to 64", "such value heads or qv were given"),
    "HDIMDIFF192": ("value head dims up to 128 beside head dims up to 192", "v has other head dims than q"),
    "LOCAL": ("local attention", "window_size or attention_chunk limits the keys"),
    "PACKGQA": ("packed GQA", "pack_gqa=True was given"),
    "PAGEDKV": ("a paged KV cache", "page_table or page_size was given"),
    "SOFTCAP": ("softcap", "softcap is not 0"),
    "SPLIT": ("split KV", "num_splits is above 1 or partial results are to be combined"),
    "VARLEN": ("variable lengths", "cu_seqlens, seqused, cache_seqlens or leftpad was given"),
}
# Those that depend on the call's arguments, not only on dtype and head dims.
CALL_FEATURES = ("PAGEDKV", "APPENDKV", "LOCAL", "SOFTCAP", "SPLIT", "PACKGQA", "VARLEN", "HDIM64", "HDIMDIFF64")
# What the profile `inference` leaves out; `full` has it.
ONLY_IN_FULL = frozenset({"BACKWARD", "SM80"})


class UnsupportedGPUError(RuntimeError):
    """The machine cannot run these kernels: no driver, no GPU, a wrong architecture, a driver too old, a CPU tensor."""


class UnsupportedFeatureError(RuntimeError):
    """The call needs kernels that this profile does not hold."""


@dataclass(frozen=True)
class Build:
    """What was compiled in: the profile's name, its switches, the CUDA runtime inside and the oldest driver for it."""

    profile: str
    switches: frozenset[str]
    cuda: str
    driver: str

    def lacks(self, feature: str) -> bool:
        """Whether the profile trimmed a feature."""
        return f"DISABLE_{feature}" in self.switches

    def remedy(self, feature: str) -> str:
        """What to install to have a feature."""
        profile = "full" if feature in ONLY_IN_FULL or self.profile == "inference" else "inference"
        return f"install the fa3-fwd wheel of profile `{profile}`"

    @property
    def gpus(self) -> str:
        """The GPUs that can run this build, in words."""
        return "compute capability 9.0 (H100, H200)" + ("" if self.lacks("SM80") else " or 8.x")


@dataclass(frozen=True)
class Machine:
    """What was found: torch, the CUDA it was built for (None: none), the driver's CUDA (13000; None: no driver)."""

    torch: str
    torch_cuda: str | None
    driver: int | None
    devices: int


def trimmed(build: Build, feature: str) -> UnsupportedFeatureError:
    """The error for a call that needs a feature which the profile trimmed."""
    what, how = FEATURES[feature]
    leave = "leave pack_gqa at None, or " if feature == "PACKGQA" else ""
    return UnsupportedFeatureError(
        f"this fa3-fwd is of profile `{build.profile}`, which holds no kernels for {what} (DISABLE_{feature}), "
        f"and {how}: {leave}{build.remedy(feature)}"
    )


def require_machine(build: Build, machine: Machine) -> None:
    """Refuse a machine without CUDA.

    Torch's build is asked first, for without CUDA in torch neither the driver nor the GPU can be seen through it.
    """
    needs = f"fa3-fwd needs a GPU of {build.gpus} with driver {build.driver} or newer"
    if machine.torch_cuda is None:
        raise UnsupportedGPUError(
            f"{needs}, and found torch {machine.torch}, which is built without CUDA: install a CUDA build of torch"
        )
    if machine.driver is None:
        raise UnsupportedGPUError(f"{needs}, and found no NVIDIA driver (libcuda.so.1): install the driver")
    require_driver(build, machine.driver)
    if machine.devices == 0:
        raise UnsupportedGPUError(
            f"{needs}, and torch {machine.torch} (CUDA {machine.torch_cuda}) found no GPU under a driver for CUDA "
            f"{_dotted(machine.driver)}: run on a node with a GPU, and check CUDA_VISIBLE_DEVICES and torch's own CUDA"
        )


def require_driver(build: Build, driver: int | None) -> None:
    """Refuse a driver that the CUDA runtime inside this build cannot run on.

    The runtime is linked statically, so torch's own does not help. Within one CUDA major every driver runs every
    runtime (minor version compatibility: we ship machine code only, no PTX to be translated by the driver), and a
    driver of a newer major runs older runtimes. So only an older major is refused. An unreadable version (None) passes.

        runtime  driver says  answer
        13.0     12080        refused
        13.2     13000        passes
        12.4     12000        passes
        12.4     13000        passes
        12.4     11080        refused
    """
    if driver is None or driver // 1000 >= int(build.cuda.split(".")[0]):
        return
    older = f", or install the fa3-fwd wheel built for CUDA {driver // 1000}" if driver >= OLDEST_WHEEL_CUDA else ""
    raise UnsupportedGPUError(
        f"this fa3-fwd holds the CUDA {build.cuda} runtime, which needs driver {build.driver} or newer, and the driver "
        f"found serves CUDA {_dotted(driver)}: update the driver{older}"
    )


def require_architecture(build: Build, capability: tuple[int, int]) -> None:
    """Refuse a GPU whose architecture was not compiled.

    The code is sm_90a, which runs on 9.0 alone, not on 10.x or 12.x; sm_80 code runs on every 8.x.
    """
    if capability == (9, 0) or (capability[0] == 8 and not build.lacks("SM80")):
        return
    remedy = "run on one of those"
    if capability[0] == 8:
        remedy = f"{remedy}, or {build.remedy('SM80')}"
    raise UnsupportedGPUError(
        f"this fa3-fwd of profile `{build.profile}` needs a GPU of {build.gpus}, and the GPU found has compute "
        f"capability {capability[0]}.{capability[1]}: {remedy}"
    )


def require_dtype(build: Build, dtype: str) -> None:
    """Refuse a trimmed dtype, named as torch prints it; a dtype no profile has is left to the compiled module."""
    feature = {"torch.float16": "FP16", "torch.float8_e4m3fn": "FP8"}.get(dtype)
    if feature is not None and build.lacks(feature):
        raise trimmed(build, feature)


def kernel_head_dims(
    build: Build, head_dim: int, head_dim_v: int, *, fp8: bool = False, hopper: bool = True
) -> tuple[int, int] | None:
    """Head dims of the kernel that a call is given to: the next compiled one up; None where there is none.

        head_dim  head_dim_v  kernel                          condition
        <= 64     > 256       (64, 512)                       HDIMDIFF64, Hopper, not FP8
        <= 64     65..256     (64, 256)                       HDIMDIFF64, Hopper, not FP8
        <= 192    <= 128      (192, 128)                      HDIMDIFF192, Hopper
        any       any         (d, d), the next d compiled     otherwise

    The kernel's second number may be below `head_dim_v`: such a call would leave columns of the output unwritten.
    """
    dim = next((dim for dim in HEAD_DIMS if head_dim <= dim and not build.lacks(f"HDIM{dim}")), None)
    if dim is None:
        return None
    if dim == 64 and head_dim_v > 64 and hopper and not fp8 and not build.lacks("HDIMDIFF64"):
        return (64, 512) if head_dim_v > 256 else (64, 256)
    if dim == 192 and head_dim_v <= 128 and hopper and not build.lacks("HDIMDIFF192"):
        return 192, 128
    return dim, dim


def require_head_dims(build: Build, head_dim: int, head_dim_v: int, *, fp8: bool = False, hopper: bool = True) -> None:
    """Refuse head dims whose kernel was trimmed.

    Pairs that no profile serves are left to the compiled module, which names the pairs it takes. One that it lets
    through and computes wrongly, FP8 with value heads wider than the kernel's, is refused here.
    """
    kernel = kernel_head_dims(build, head_dim, head_dim_v, fp8=fp8, hopper=hopper)
    if kernel is None:
        raise _head_dim_too_large(build, head_dim)
    if head_dim == head_dim_v or not hopper:
        return
    small_keys = head_dim <= 64 and head_dim_v <= 512
    if small_keys and head_dim_v > kernel[1]:
        if fp8:
            raise UnsupportedFeatureError(
                f"no profile of fa3-fwd holds float8 kernels for head dim {head_dim} with value head dim {head_dim_v}"
                ": use bfloat16, or equal head dims"
            )
        raise trimmed(build, "HDIMDIFF64" if build.lacks("HDIMDIFF64") else "HDIM64")
    # (192, 192) would serve it, but paged KV then tests the page size against another kernel's tile.
    if 128 < head_dim <= 192 and 96 < head_dim_v <= 128 and kernel == (192, 192):
        raise trimmed(build, "HDIMDIFF192")


def _head_dim_too_large(build: Build, head_dim: int) -> UnsupportedFeatureError:
    largest = max((dim for dim in HEAD_DIMS if not build.lacks(f"HDIM{dim}")), default=0)
    remedy = "no profile has it" if head_dim > HEAD_DIMS[-1] else build.remedy("HDIM")
    return UnsupportedFeatureError(
        f"this fa3-fwd of profile `{build.profile}` holds kernels for head dims up to {largest}, "
        f"and head dim {head_dim} was given: {remedy}"
    )


def is_local(window: tuple[int, int], *, causal: bool, chunk: int, seqlen_q: int, seqlen_k: int) -> bool:
    """Whether a call needs local kernels.

    A window that reaches past every key (left) or query (right) limits nothing, and causal alone is no window.
    """
    left, right = window
    limits_left = 0 <= left < seqlen_k - 1
    limits_right = not causal and 0 < right < seqlen_q - 1
    return chunk > 0 or limits_left or limits_right


def require_features(build: Build, needed: Iterable[str]) -> None:
    """Refuse the first needed feature that the profile trimmed."""
    for feature in needed:
        if build.lacks(feature):
            raise trimmed(build, feature)


def _dotted(driver: int) -> str:
    """The driver's CUDA as people write it: 12080 -> 12.8."""
    return f"{driver // 1000}.{driver % 1000 // 10}"


def head_dim_too_small_for_pages(build: Build, head_dim: int) -> UnsupportedFeatureError:
    """The error for paged KV in a profile whose smallest kernel is (192, 128) and head dims of at most 128."""
    return UnsupportedFeatureError(
        f"this fa3-fwd of profile `{build.profile}` pages its KV cache only for head dims above 128, "
        f"and head dim {head_dim} was given: {build.remedy('HDIM')}"
    )
