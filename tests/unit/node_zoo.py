"""A healthy Hopper node, and catalogs as the doctor reads them."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.unit.index_zoo import entry

from hopperforge.index.catalog import Catalog, Entry, EntryCell
from hopperforge.model.cell import AbiClass
from hopperforge.node.reading import read_entries
from hopperforge.node.values import Driver, Gpu, Node, Torch
from hopperforge.node.values import Entry as Known

H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0))
A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0))
B200 = Gpu("NVIDIA B200", (10, 0))
OURS = {"fa3_fwd/__init__.py": b"", "fa3_fwd_interface.py": b"import fa3_fwd\n"}
TORCH = b"""from typing import Optional
__version__ = '2.6.0+cu124'
debug = False
cuda: Optional[str] = '12.4'
git_version = '1eba9b3aa3c43f86f4a2c807ac8e12c4a7767340'
hip: Optional[str] = None
"""


def node(**changes: Any) -> Node:
    """A node with an H100, driver 580, torch 2.11 for CUDA 13.0 and no FlashAttention, and `changes` made."""
    fields: dict[str, Any] = {
        "python": (3, 12, 4),
        "implementation": "cpython",
        "free_threaded": False,
        "executable": "/usr/bin/python3",
        "system": "Linux",
        "machine": "x86_64",
        "libc": ("glibc", (2, 36)),
        "gpus": (H100,),
        "driver": Driver("580.65.06", (13, 0)),
        "torch": Torch("2.11.0+cu130", (13, 0), cxx11_abi=True),
        "packages": (),
    }
    return Node(**(fields | changes))


def known(*entries: Entry) -> tuple[Known, ...]:
    """Entries as the doctor reads them, out of the very bytes of a catalog."""
    return read_entries(json.loads(Catalog.of(entries).to_json()), "here")


def stable(cuda: str = "12.4", driver: str = "525.60.13", **changes: Any) -> Entry:
    """The one wheel, of a toolkit."""
    version = f"3.0.0+cu{cuda.replace('.', '')}"
    facts = {"version": version, "file": f"fa3_fwd-{version}-cp39-abi3-manylinux_2_28_x86_64.whl", "toolkit": cuda}
    tags = {"driver": driver, "platform_tags": ("manylinux_2_28_x86_64",)}
    return entry(**(facts | tags | changes))


def newer(**changes: Any) -> Entry:
    """The one wheel, compiled with CUDA 13.0."""
    return stable("13.0", "580.65.06", **changes)


def per_torch(torch: str = "2.6", runtime: str = "12.4", **changes: Any) -> Entry:
    """A wheel for one torch line."""
    version = f"3.0.0+cu124torch{torch}"
    facts: dict[str, Any] = {
        "version": version,
        "file": f"fa3_fwd-{version}-cp39-abi3-manylinux_2_28_x86_64.whl",
        "abi": AbiClass.PER_TORCH,
        "torch": f"torch=={torch}.*",
        "cells": (EntryCell(torch=torch, python="3.12", platform="linux_x86_64", runtime=runtime),),
    }
    return stable(**(facts | changes))


def trimmed(**changes: Any) -> Entry:
    """The one wheel in a profile that is not the default."""
    version = "3.0.0+cu124.hdim128.bf16"
    file = f"fa3_fwd-{version}-cp39-abi3-manylinux_2_28_x86_64.whl"
    facts: dict[str, Any] = {
        "version": version,
        "file": file,
        "profile": "hdim128-bf16",
        "default": False,
        "switches": ("A", "B"),
    }
    return stable(**(facts | changes))


def distribution(site: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Put an installed distribution into a folder, with its RECORD."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/METADATA,,", f"{info.name}/RECORD,,", ""]))
    return info
