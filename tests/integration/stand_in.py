"""A small stand-in for torch, and interface modules of packages that keep their promise beside it."""

from collections.abc import Mapping
from pathlib import Path

from tests.unit import wheel_zoo as zoo

from hopperforge.stages.wheel_archive import make_record

# Stands for torch: a namespace of operators, and what makes a tensor.
FRAMEWORK = b"""
class _Namespace:
    pass

class _Ops:
    fa3_fwd = _Namespace()

__version__ = "2.11.0"
ops = _Ops()
bfloat16 = "bfloat16"

def zeros(shape, dtype):
    return (shape, dtype)
"""
LOAD = b"""
import ctypes, pathlib
ctypes.CDLL(str(pathlib.Path(__file__).parent / "fa3_fwd" / "_C.abi3.so"), mode=2)
import torch
torch.ops.fa3_fwd.fwd = print
"""
GUARDED = b"""
def flash_attn_func(q, k, v):
    raise RuntimeError("fa3-fwd needs a GPU and found none: run on a node with one")
"""


def framework_wheel(folder: Path, more: Mapping[str, bytes] | None = None) -> Path:
    """Write the stand-in as a wheel, with `more` files."""
    info = "torch-2.11.0.dist-info"
    members = {
        "torch/__init__.py": FRAMEWORK,
        **(more or {}),
        f"{info}/METADATA": zoo.metadata("2.11.0", "torch", ()),
        f"{info}/WHEEL": zoo.wheel_file("py3-none-any", pure="true"),
    }
    members[f"{info}/RECORD"] = make_record(members, f"{info}/RECORD")
    return zoo.write(folder, members, name="torch-2.11.0-py3-none-any.whl")
