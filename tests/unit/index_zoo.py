"""Catalog entries made of plain values, for tests of what writes and reads an index."""

import hashlib
from collections.abc import Sequence
from typing import Any

from hopperforge.index.catalog import Catalog, Entry, EntryCell, EntryGate, GpuProof, Speed
from hopperforge.index.entries import abi_of

PROOF = GpuProof(
    gpu="NVIDIA H200",
    driver="580.95.05",
    torch="2.11.0+cu130",
    passed=89,
    speeds=(Speed(shape="batch 4 seqlen 4096 heads 16 head_dim 128 bfloat16", tflops=643.2),),
)


def cells(*torches: str, runtime: str = "13.0") -> tuple[EntryCell, ...]:
    """Cells of Python 3.12, one for each torch."""
    return tuple(EntryCell(torch=torch, python="3.12", platform="linux_x86_64", runtime=runtime) for torch in torches)


def entry(version: str = "3.0.0+cu130", **changes: Any) -> Entry:
    """An entry whose file, toolkit and hashes follow from its version, with `changes` made."""
    file = f"fa3_fwd-{version}-cp39-abi3-manylinux_2_28_x86_64.whl"
    digits = version.partition("+cu")[2].partition("torch")[0].partition(".")[0] or "130"
    fields: dict[str, Any] = {
        "project": "fa3-fwd",
        "version": version,
        "file": file,
        "sha256": hashlib.sha256(file.encode()).hexdigest(),
        "size": 27_600_000,
        "library_size": 105_000_000,
        "metadata_sha256": hashlib.sha256(version.encode()).hexdigest(),
        "requires_python": ">=3.9",
        "platform_tags": ("manylinux_2_28_x86_64",),
        "recipe": "fa3-fwd",
        "profile": "fa3-fwd",
        "default": True,
        "switches": ("DISABLE_BACKWARD", "DISABLE_FP16"),
        "architectures": ("sm_90a",),
        "toolkit": f"{digits[:2]}.{digits[2:]}",
        "driver": "580.65.06",
        "abi": abi_of(version),
        "torch": "torch>=2.9",
        "cells": cells("2.9", "2.11"),
        "gates": (EntryGate(name="metadata", passed=True), EntryGate(name="size", passed=True)),
        "gpu": PROOF,
        "commit": "de" * 20,
        "created": "2026-11-21T07:00:00+00:00",
        "uploaded": "2026-11-22T08:30:15+00:00",
    }
    return Entry(**(fields | changes))


def catalog(*entries: Entry) -> Catalog:
    """A catalog of `entries`."""
    return Catalog.of(entries)


def many(count: int) -> Catalog:
    """A catalog of `count` packages as years of releases would fill it.

    Each release has builds of the stable ABI for several toolkits, some of a profile of their own, and builds for one
    torch.
    """
    made: list[Entry] = []
    release = 0
    while len(made) < count:
        release += 1
        made += _release(f"3.{release // 50}.{release % 50}")
    return Catalog.of(made[:count])


def _release(number: str) -> Sequence[Entry]:
    later = tuple(f"2.{minor}" for minor in range(9, 16))
    stable = [
        entry(f"{number}+{label}{suffix}", cells=cells(*later), default=not suffix, profile=profile)
        for label in ("cu124", "cu126", "cu128", "cu129", "cu130", "cu132", "cu135")
        for suffix, profile in (("", "fa3-fwd"), (".hdim128.bf16", "hdim128-bf16"), (".full", "full"))
    ]
    bound = [
        entry(f"{number}+{label}torch{torch}", cells=cells(torch, runtime="12.8"), torch=f"torch=={torch}.*")
        for label in ("cu124", "cu126", "cu128")
        for torch in ("2.5", "2.6", "2.7", "2.8")
    ]
    return [*stable, *bound]
