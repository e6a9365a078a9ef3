"""Runs in the Python a wheel is proven for: imports it, looks for its operators, calls it without a GPU.

A program of its own: it knows nothing of hopperforge, and its Python may be older than ours. Called with a JSON
object in its one argument, it prints one line: PROBE and a JSON object of the problems and what was imported beside.
"""

import importlib
import json
import platform
import sys
from typing import Any

MARK = "PROBE "


def problems(order: dict[str, Any]) -> list[str]:
    """Say in what the package breaks its promise; an empty list if it keeps it."""
    sys.path[:0] = order["paths"]
    try:
        module = importlib.import_module(order["module"])
        torch = importlib.import_module("torch")
    except (ImportError, OSError, RuntimeError) as error:
        return [f"import {order['module']} fails: {type(error).__name__}: {error}"]
    missing = [name for name in order["operators"] if not _has_operator(torch, name)]
    found = [f"torch has no operator {name} after import {order['module']}" for name in missing]
    return found + (_call(torch, getattr(module, order["function"], None), order) if order["function"] else [])


def _has_operator(torch: Any, name: str) -> bool:
    namespace, _, operator = name.partition("::")
    return hasattr(getattr(torch.ops, namespace), operator)


def _call(torch: Any, function: Any, order: dict[str, Any]) -> list[str]:
    name = f"{order['module']}.{order['function']}"
    if function is None:
        return [f"{name} does not exist"]
    tensor = torch.zeros((1, 16, 1, 128), dtype=torch.bfloat16)
    try:
        function(tensor, tensor, tensor)
    except (RuntimeError, ImportError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        if order["guard"] in str(error):
            return []
        return [f"{name} without a GPU says {type(error).__name__}: {error}; expected a sentence with {order['guard']}"]
    return [f"{name} without a GPU returns instead of saying what is missing"]


def beside() -> str:
    """Say what the package was imported beside: torch with its CUDA, if it came so far, Python and libc."""
    torch = getattr(sys.modules.get("torch"), "__version__", "none")
    return f"torch {torch} in Python {platform.python_version()} on {' '.join(platform.libc_ver())}"


if __name__ == "__main__":
    said = {"problems": problems(json.loads(sys.argv[1])), "beside": beside()}
    sys.stdout.write(f"\n{MARK}{json.dumps(said)}\n")
