"""What this machine has: which packages import, in which version, and what its GPUs are.

A package is imported when it is first asked about, and never again: one that fails to import says so in `problem`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ._rules import BACKENDS, PYTORCH, Capability, Found

NAMES = {
    "fa3_fwd": ("fa3_fwd_interface", "flash_attn_func"),
    "flash_attn_3": ("flash_attn_interface", "flash_attn_func"),
    "flash_attn": ("flash_attn", "flash_attn_func"),
    "flash_attention": ("flash_attention", "flash_attention"),
}
"""The function of each package and the module that it is in."""
_OF_ALL = frozenset({"softmax_scale", "causal"})
_OF_FA3 = _OF_ALL | {"window_size", "softcap", "deterministic", "return_attn_probs"}
WORDS = {
    "fa3_fwd": _OF_FA3,
    "flash_attn_3": _OF_FA3,
    "flash_attn": _OF_FA3 | {"dropout_p"},
    "flash_attention": _OF_ALL | {"bias", "mask", "dropout", "return_lse"},
}
"""What each function is told by name; older versions of some packages lack a word, and would fail at every call."""
FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""The functions found so far. A dictionary, because torch.compile can look into one, and cannot trace an import."""

# The package of that name which hopperforge's replaces does not tell what it was compiled with.
_FA3_FWD_0 = frozenset({"DISABLE_BACKWARD", "DISABLE_PAGEDKV", "DISABLE_LOCAL", "DISABLE_FP16"})


@cache
def find(backend: str) -> Found:
    """Look for a backend; a package that is not there, or does not import, is a `problem` in one sentence."""
    package = BACKENDS[backend].package
    if package == PYTORCH:
        return Found(version=torch.__version__)
    try:
        found = version(package)
    except PackageNotFoundError:
        return Found(problem=f"{package} is not installed")
    module, function = NAMES[backend]
    try:
        called = getattr(importlib.import_module(module), function)
    except (ImportError, OSError, RuntimeError) as error:  # torch raises the last where operators are registered twice
        return Found(version=found, problem=f"{package} does not import: {' '.join(str(error).split())}")
    except AttributeError:
        return Found(version=found, problem=f"{package} has no {module}.{function}")
    lacking = sorted(WORDS[backend] - inspect.signature(called).parameters.keys())
    if lacking:
        return Found(version=found, problem=f"{package} is of another version: {function} takes no {lacking[0]}")
    FUNCTIONS[backend] = called
    return Found(version=found, switches=_switches(backend))


def find_all() -> dict[str, Found]:
    """Look for every backend."""
    return {name: find(name) for name in BACKENDS}


def _switches(backend: str) -> frozenset[str]:
    """What an FA3 package was trimmed by. Upstream's own does not tell at this pin, and refuses what it lacks."""
    if backend != "fa3_fwd":
        return frozenset()
    tell = getattr(importlib.import_module("fa3_fwd"), "build_info", None)
    return _FA3_FWD_0 if tell is None else frozenset(tell()["switches"])


@cache
def capability(index: int) -> Capability:
    """The compute capability of a GPU."""
    return torch.cuda.get_device_capability(index)


def default_device() -> tuple[str, Capability | None]:
    """The kind of device that attention would run on here, and its capability if it is a GPU."""
    if not torch.cuda.is_available():
        return "cpu", None
    return "cuda", capability(torch.cuda.current_device())
