"""A healthy Hopper node, and catalogs as the doctor reads them."""

import json
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
