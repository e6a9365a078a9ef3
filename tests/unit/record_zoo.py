"""A whole record, made of plain values, for tests of what keeps and reads records."""

from typing import Any

from hopperforge.index.proof import REQUIRED_GATES
from hopperforge.model.front import FrontKind
from hopperforge.model.record import (
    RECORD_FORMAT,
    CompilerFacts,
    FrameworkFacts,
    FrontFacts,
    ImageFacts,
    PackFacts,
    Record,
    Reproduction,
    ServedCell,
    SourceFacts,
    ToolFacts,
    ToolkitFacts,
    UnitFacts,
    WheelFacts,
)
from hopperforge.model.request import Kernels
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult

CUDA = ToolkitVersion.parse("13.0")
GATES = (
    GateResult(name="metadata", passed=True, detail="fa3-fwd 3.0.0+cu130"),
    GateResult(name="size", passed=True, detail="the wheel 5 of 9 bytes"),
    *(GateResult(name=name, passed=True, detail="") for name in sorted(REQUIRED_GATES - {"metadata", "size"})),
)
PACK = PackFacts(
    key="05" * 32,
    sha256="06" * 32,
    units=(
        UnitFacts(
            path="a.cu",
            sources=("a.cu",),
            key="07" * 32,
            sha256="08" * 32,
            size=9,
            seconds=88.5,
            peak_rss=5_300_000_000,
        ),
        UnitFacts(
            path="merged/b-x2-0123abcd.cu",
            sources=("b.cu", "c.cu"),
            key="09" * 32,
            sha256="0a" * 32,
            size=9,
            seconds=None,
            peak_rss=None,
        ),
    ),
)

REPRODUCTION = Reproduction(created="2026-11-22T07:00:00Z", machine="x86_64, 16 cores", engine="podman", by="ann")

TOOLKIT = ToolkitFacts(version=CUDA, release="13.0.88", origin=ToolkitOrigin.REGISTRY, fingerprint={"nvcc": "03" * 32})
COMPILER = CompilerFacts(version="12.2.0", fingerprint={"cc1plus": "04" * 32})


def record(**changes: Any) -> Record:
    """A record with every kind of value in it, and `changes` made."""
    fields: dict[str, Any] = {
        "format": RECORD_FORMAT,
        "name": "fa3-fwd",
        "version": "3.0.0+cu130",
        "wheel": WheelFacts(
            file="fa3_fwd-3.0.0+cu130-cp39-abi3-manylinux_2_17_x86_64.whl",
            sha256="ab" * 32,
            size=5,
            library_size=17,
            platform_tags=("manylinux_2_17_x86_64",),
        ),
        "tarball": None,
        "build_key": "11" * 32,
        "recipe": "fa3-fwd",
        "profile": "hdim128-bf16",
        "switches": ("DISABLE_BACKWARD", "DISABLE_FP16"),
        "architectures": ("sm_90a",),
        "cells": (
            ServedCell(
                cuda=CUDA,
                torch=TorchVersion.parse("2.10"),
                python=PythonVersion.parse("3.10"),
                platform="linux_x86_64",
                runtime=CudaVersion.parse("12.8"),
            ),
        ),
        "source": SourceFacts(
            pin="v2.8.3-133-gde1584b",
            commit="de" * 20,
            epoch=1_700_000_000,
            trees={"hopper": "0a" * 20},
            origin="sdist xformers-0.0.33.post2.tar.gz",
            patches={"0001-no-downloads.patch": "cd" * 32},
            kernel_tree="01" * 32,
            front_tree="02" * 32,
        ),
        "toolkit": TOOLKIT,
        "host_compiler": COMPILER,
        "engine": "docker",
        "image": ImageFacts(id="a" * 64, base="bullseye", base_id="b" * 64, floor="manylinux_2_28_x86_64"),
        "kernels": Kernels.PACK,
        "pack": PACK,
        "front": FrontFacts(
            kind=FrontKind.TORCH_UPSTREAM,
            framework=FrameworkFacts(name="torch", release="2.9.1", wheel_sha256="0b" * 32),
            sources={},
            flags=("-O3", "-DX=\u201cy\u201d"),
            tools={"setuptools": "84.2.1"},
        ),
        "licences": {"LICENSE": "0c" * 32, "LICENSE.cuda.txt": "0d" * 32},
        "sbom": "0e" * 32,
        "gates": GATES,
        "gpu": None,
        "reproduced": (REPRODUCTION,),
        "made_by": ToolFacts(version="0.1.0", commit="c0" * 20, clean=True),
        "timings": {"kernels": 93.25, "front": 6},
        "created": "2026-11-21T07:00:00Z",
    }
    return Record(**(fields | changes))
