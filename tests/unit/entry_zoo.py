"""A whole entry of a catalog, made of plain values, for tests of what reads catalogs."""

from typing import Any

from hopperforge.index.catalog import Entry, EntryCell, EntryGate
from hopperforge.model.cell import AbiClass


def entry(**changes: Any) -> Entry:
    """An entry with `changes` made: the one wheel, compiled with CUDA 12.4."""
    fields: dict[str, Any] = {
        "project": "fa3-fwd",
        "version": "3.0.0+cu124",
        "file": "fa3_fwd-3.0.0+cu124-cp39-abi3-manylinux_2_17_x86_64.whl",
        "sha256": "ab" * 32,
        "size": 5,
        "library_size": 17,
        "metadata_sha256": "cd" * 32,
        "requires_python": ">=3.9",
        "platform_tags": ("manylinux_2_17_x86_64",),
        "recipe": "fa3-fwd",
        "profile": "fa3-fwd",
        "default": True,
        "switches": ("DISABLE_BACKWARD",),
        "architectures": ("sm_90a",),
        "toolkit": "12.4+ptxas12.8",
        "driver": "525.60.13",
        "abi": AbiClass.STABLE,
        "torch": "torch>=2.9",
        "cells": (EntryCell(torch="2.11", python="3.12", platform="linux_x86_64", runtime="13.0"),),
        "gates": (EntryGate(name="metadata", passed=True),),
        "gpu": None,
        "commit": "de" * 20,
        "created": "2026-11-21T07:00:00Z",
        "uploaded": "2026-11-21T08:00:00Z",
    }
    return Entry(**(fields | changes))
