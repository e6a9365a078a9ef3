"""Whether one wheel fits a machine: each function says why not, or None. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hopperforge.node.values import Driver, Entry, Gpu, Node, Torch, Wanted, gpu_text
from hopperforge.node.versions import Numbers, compare, dotted, numbers, satisfies

OLD_ABI_UNTIL = (2, 6)
"""The package index's torches up to this line have the old C++ ABI, and per-torch wheels are bound to those."""
LEGACY_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


def why_not(entry: Entry, node: Node, wanted: Wanted) -> tuple[str, ...]:
    """Give every reason why a wheel does not fit; none where it fits.

    What is not known of the machine (no torch, no driver, no GPU) speaks against no wheel: it is a finding of its own.
    """
    asked = wanted.profile in (None, entry.profile)
    found = (
        None if asked else f"is of profile {entry.profile}",
        None if entry.yanked is None else f"was withdrawn: {entry.yanked}",
        _python_reason(entry, node),
        _platform_reason(entry, node),
        _gpu_reason(entry, node.gpus),
        _driver_reason(entry, node.driver) or _ptx_reason(entry, node),
        *(() if node.torch is None else (_torch_reason(entry, node.torch), _torch_cuda_reason(entry, node.torch))),
    )
    return tuple(reason for reason in found if reason is not None)


def _python_reason(entry: Entry, node: Node) -> str | None:
    if entry.free:
        return _version_reason(entry, node)
    if node.implementation != "cpython":
        return f"is for CPython, this is {node.implementation}"
    if node.free_threaded:
        return "is of the stable ABI, which a free-threaded Python does not load"
    return _version_reason(entry, node)


def _version_reason(entry: Entry, node: Node) -> str | None:
    if entry.requires_python and not satisfies(node.python, entry.requires_python):
        return f"needs Python {entry.requires_python}, this is {dotted(node.python)}"
    return None


def _platform_reason(entry: Entry, node: Node) -> str | None:
    """Say why no platform tag is for this system; of several glibc floors the lowest is named."""
    if "any" in entry.platform_tags:
        return None
    found = [(tag, _floor(tag)) for tag in entry.platform_tags]
    floors = sorted(floor for tag, floor in found if tag.endswith(f"_{node.machine}") and floor is not None)
    if node.system != "Linux" or not floors:
        return f"is for {', '.join(entry.platform_tags)}, this is {node.system} on {node.machine}"
    name, version = node.libc
    if name != "glibc":
        return f"is for glibc, this system has {name}"
    if compare(version, floors[0]) < 0:
        return f"needs glibc {dotted(floors[0])}, this system has {dotted(version)}"
    return None


def _floor(tag: str) -> Numbers | None:
    """Read the glibc that a platform tag asks for; (0,) for a plain linux tag, None for another system's."""
    match = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    if match:
        return int(match[1]), int(match[2])
    legacy = next((glibc for name, glibc in LEGACY_TAGS.items() if tag.startswith(f"{name}_")), None)
    return (0,) if tag.startswith("linux_") else legacy


def runs_on(architecture: str, capability: Numbers) -> bool:
    """Whether machine code runs on a GPU.

    | code   | runs on                                   |
    |--------|-------------------------------------------|
    | sm_90a | 9.0 alone: the letter ties it to that GPU |
    | sm_80  | 8.0, 8.6, 8.9: the same major, not older  |
    | compute_90 | 9.0 and whatever is newer: the driver compiles it, see `_ptx_reason` |
    """
    ptx = re.fullmatch(r"compute_(\d+)(\d)", architecture)
    if ptx is not None:
        return capability >= (int(ptx[1]), int(ptx[2]))
    match = re.fullmatch(r"sm_(\d+)(\d)([af]?)", architecture)
    if match is None:
        return False
    built = (int(match[1]), int(match[2]))
    return capability == built if match[3] else capability[0] == built[0] and capability >= built


def fitting_gpus(entry: Entry, gpus: Sequence[Gpu]) -> tuple[bool, ...]:
    """Say of each GPU whether the wheel's code runs on it; one of unknown capability is given the benefit.

    A wheel without code fits them all.
    """
    return tuple(
        gpu.capability is None
        or not entry.architectures
        or any(runs_on(code, gpu.capability) for code in entry.architectures)
        for gpu in gpus
    )


def _gpu_reason(entry: Entry, gpus: Sequence[Gpu]) -> str | None:
    if not gpus or any(fitting_gpus(entry, gpus)):
        return None
    return f"holds code for {', '.join(entry.architectures)}, and the GPU here is {gpu_text(gpus[0])}"


def _driver_reason(entry: Entry, driver: Driver | None) -> str | None:
    """Say why the driver does not serve the CUDA runtime inside: only an older CUDA major, or an older version, is."""
    if driver is None or not entry.cuda:
        return None
    needs = f"holds the CUDA {dotted(entry.cuda)} runtime, which needs driver {entry.driver}"
    if driver.cuda is not None and driver.cuda[0] < entry.cuda[0]:
        return f"{needs}, and the driver here serves CUDA {dotted(driver.cuda)}"
    if driver.cuda is None and driver.version and compare(numbers(driver.version), numbers(entry.driver)) < 0:
        return f"{needs}, and the driver here is {driver.version}"
    return None


def _ptx_reason(entry: Entry, node: Node) -> str | None:
    """Say why the driver does not compile the PTX that all GPUs here need: unlike machine code, it must be no newer."""
    driver, code = node.driver, [one for one in entry.architectures if one.startswith("sm_")]
    known = [gpu.capability for gpu in node.gpus if gpu.capability is not None]
    if driver is None or driver.cuda is None or not entry.cuda or len(known) < max(1, len(node.gpus)):
        return None
    if compare(driver.cuda, entry.cuda) >= 0 or any(runs_on(one, capability) for one in code for capability in known):
        return None
    if not any(fitting_gpus(entry, node.gpus)):
        return None  # `_gpu_reason` says so
    return (
        f"has for {gpu_text(node.gpus[0])} the PTX of CUDA {dotted(entry.cuda)}, "
        f"and the driver here compiles that of CUDA {dotted(driver.cuda)}"
    )


def _torch_reason(entry: Entry, torch: Torch) -> str | None:
    if entry.torch is None:
        return None
    if not satisfies(numbers(torch.version), re.sub(r"^\s*torch", "", entry.torch)):
        return f"needs {entry.torch}, installed is {torch.version}"
    bound = numbers(entry.torch_line) > OLD_ABI_UNTIL
    if entry.abi == "per-torch" and torch.cxx11_abi is not None and torch.cxx11_abi != bound:
        return f"is bound to torch's {_abi(bound)} C++ ABI, and torch {torch.version} has the {_abi(not bound)} one"
    return None


def _abi(new: bool) -> str:
    return "C++11" if new else "old"


def _torch_cuda_reason(entry: Entry, torch: Torch) -> str | None:
    """Say why a wheel does not go with the CUDA of torch, by the rule of the index's pages.

    | ABI       | fits when the toolkit's CUDA                      |
    |-----------|---------------------------------------------------|
    | stable    | is not newer than torch's                         |
    | per-torch | is not newer than torch's, and of the same major  |
    | none      | is any: it has no torch                           |
    """
    if torch.cuda is None or entry.free:
        return None
    newer = compare(entry.cuda, torch.cuda) > 0
    if newer or (entry.abi == "per-torch" and entry.cuda[0] != torch.cuda[0]):
        return f"was compiled for CUDA {dotted(entry.cuda)}, torch {torch.version} runs on {dotted(torch.cuda)}"
    return None
