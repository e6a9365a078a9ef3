"""Entries made from records, and what counts as proof."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.record_zoo import GATES, record
from tests.unit.wheel_zoo import metadata

from hopperforge.index.catalog import Catalog, EntryCell, EntryGate, GpuProof, Speed
from hopperforge.index.entries import Publication, abi_of, make_entry
from hopperforge.index.proof import unproven_reasons
from hopperforge.model.cell import AbiClass
from hopperforge.model.record import Record
from hopperforge.model.wheel import GateResult

IMPORTED = GateResult(name="import with torch 2.10 in python 3.11", passed=True, detail="4 operators")
GPU: dict[str, Any] = {
    "sha256": "ab" * 32,
    "gpu": "NVIDIA H200",
    "driver": "580.95.05",
    "torch": "2.11.0+cu130",
    "passed": 89,
    "failed": 0,
    "complete": True,
    "tflops": [
        {
            "batch": 4,
            "seqlen": 4096,
            "heads": 16,
            "head_dim": 128,
            "causal": True,
            "dtype": "bfloat16",
            "tflops": 586.4,
        }
    ],
}
PUBLICATION = Publication(driver="580.65.06", default=False, uploaded="2026-11-22T08:30:15+00:00")


def proven(**changes: Any) -> Record:
    return record(**({"gates": (*GATES, IMPORTED), "gpu": GPU} | changes))


def test_an_entry_says_what_record_metadata_and_publication_say() -> None:
    core = metadata() + b""
    made = make_entry(proven(), core, PUBLICATION)
    assert (made.project, made.version, made.path) == ("fa3-fwd", "3.0.0+cu130", f"pool/fa3-fwd/{made.file}")
    assert (made.sha256, made.size, made.library_size) == ("ab" * 32, 5, 17)
    assert made.metadata_sha256 == hashlib.sha256(core).hexdigest()
    assert (made.toolkit, made.driver, made.torch, made.abi) == ("13.0", "580.65.06", "torch>=2.9", AbiClass.STABLE)
    assert made.cells == (EntryCell(torch="2.10", python="3.10", platform="linux_x86_64", runtime="12.8"),)
    assert made.gates[-1] == EntryGate(name=IMPORTED.name, passed=True)
    assert made.gpu == GpuProof(
        gpu="NVIDIA H200",
        driver="580.95.05",
        torch="2.11.0+cu130",
        passed=89,
        speeds=(Speed(shape="batch 4 seqlen 4096 heads 16 head_dim 128 causal bfloat16", tflops=586.4),),
    )
    assert (made.default, made.uploaded, made.yanked, made.unproven) == (False, PUBLICATION.uploaded, None, False)
    assert Catalog.from_json(Catalog.of([made]).to_json(), "it").packages == (made,)


def test_what_the_metadata_requires_is_read_from_it() -> None:
    core = metadata(requires=("numpy", "Torch>=2.9,<3; python_version >= '3.9'"))
    made = make_entry(proven(name="FA3.fwd"), core, PUBLICATION)
    assert (made.project, made.torch, made.requires_python) == ("fa3-fwd", "torch<3,>=2.9", ">=3.9")
    assert made.requires == ("numpy",)
    without = metadata(requires=("numpy", "not a ; requirement")).replace(b"Requires-Python: >=3.9\n", b"")
    bare = make_entry(proven(), without, PUBLICATION)
    assert (bare.torch, bare.requires_python) == (None, None)


def test_speeds_of_an_older_kit_have_fewer_words() -> None:
    made = make_entry(proven(gpu=GPU | {"tflops": [{"tflops": 600}]}), metadata(), PUBLICATION)
    assert made.gpu is not None
    assert made.gpu.speeds == (Speed(shape="", tflops=600.0),)
    assert make_entry(
        proven(gpu={key: GPU[key] for key in GPU if key != "tflops"}), metadata(), PUBLICATION
    ).gpu == replace(made.gpu, speeds=())


@pytest.mark.parametrize(
    ("version", "abi"),
    [
        ("3.0.0+cu130", AbiClass.STABLE),
        ("3.0.0+cu124.hdim128.bf16", AbiClass.STABLE),
        ("3.0.0", AbiClass.STABLE),
        ("3.0.0+cu124torch2.6", AbiClass.PER_TORCH),
        ("3.0.0+cu124torch2.6.hdim128.bf16", AbiClass.PER_TORCH),
    ],
)
def test_the_abi_is_read_from_the_local_label(version: str, abi: AbiClass) -> None:
    assert abi_of(version) is abi


def test_a_proven_record_lacks_nothing() -> None:
    assert unproven_reasons(proven()) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gates": (*GATES, IMPORTED, GateResult(name="paths", passed=False, detail="/x"))}, "gate paths failed: /x"),
        ({"gates": (*GATES[1:], IMPORTED)}, f"gate {GATES[0].name} is missing"),
        ({"gates": GATES}, "no gate shows an import beside a torch it serves"),
        ({"gates": (replace(IMPORTED, passed=False), *GATES)}, "no gate shows an import beside a torch it serves"),
        (
            {"gates": (*GATES, replace(IMPORTED, name="import with torch 2.6 in python 3.11"))},
            "no gate shows an import beside a torch it serves",
        ),
        ({"gates": ()}, "gate abi3 is missing"),
        ({"gpu": None}, "no smoke tests on a GPU"),
        ({"gpu": {}}, "a smoke test on a GPU failed, or none passed"),
        ({"gpu": GPU | {"failed": 1}}, "a smoke test on a GPU failed, or none passed"),
        ({"gpu": GPU | {"passed": 0}}, "a smoke test on a GPU failed, or none passed"),
        ({"gpu": GPU | {"complete": False}}, "only a part of the smoke tests was run on a GPU"),
        ({"gpu": GPU | {"sha256": "cd" * 32}}, "the smoke tests on a GPU are of other bytes"),
        ({"gpu": GPU | {"driver": ""}}, "the smoke tests on a GPU do not name their driver"),
    ],
)
def test_what_is_missing_is_said_and_marks_the_entry(changes: dict[str, Any], says: str) -> None:
    unproven = proven(**changes)
    assert any(reason.startswith(says) for reason in unproven_reasons(unproven))
    made = make_entry(unproven, metadata(), PUBLICATION)
    assert made.unproven
    assert (made.gpu is None) == ("gpu" in changes)
