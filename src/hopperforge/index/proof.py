"""Whether a record proves its package, as publishing and signing ask: gates, and for publishing an import and a GPU."""

from collections.abc import Mapping
from typing import Any, Final

from hopperforge.index.catalog import GpuProof, Speed
from hopperforge.model.record import Record
from hopperforge.model.wheel import ImportProof

REQUIRED_GATES: Final = frozenset(
    {"metadata", "record", "sbom", "licences", "bundled", "needed", "exports", "runpath", "paths", "size"}
    | {"platform-tag", "abi3", "architectures", "compression"}
)
"""The gates that a build for torch passes; imports and the GPU come on top, where a package was brought to them."""

PYTHON_GATES: Final = frozenset(
    {"metadata", "record", "sbom", "licences", "paths", "size", "pure", "modules", "install"}
)
"""The gates of a package of Python alone."""

_WITHOUT_TORCH: Final = (REQUIRED_GATES - {"abi3"}) | {"python-free"}

_GPU_KEYS: Final = ("gpu", "driver")


def unproven_reasons(record: Record) -> tuple[str, ...]:
    """Say what a record lacks as proof; nothing for a package that may be published as it is.

    | missing                                                    | said            |
    |------------------------------------------------------------|-----------------|
    | a gate that failed                                         | which, and why  |
    | a gate of every build that was not run                     | which           |
    | a passed import gate with one of the torches it binds to   | once            |
    | the whole kit of smoke tests, passed on a GPU              | why not         |
    """
    failed = [f"gate {gate.name} failed: {gate.detail}" for gate in record.gates if not gate.passed]
    unimported = [] if _imported(record) else ["no gate shows an import beside a torch it serves (nox -s verify)"]
    return (
        *failed,
        *missing_gates(record),
        *unimported,
        *_gpu_reasons(record),
    )


def missing_gates(record: Record) -> list[str]:
    """Name the gates of every build that a record does not hold; one of an older hopperforge lacks some."""
    return [f"gate {name} is missing" for name in sorted(_required(record) - {gate.name for gate in record.gates})]


def _required(record: Record) -> frozenset[str]:
    """Give the gates that a package of its front passes."""
    named = {"tarball"} if record.tarball is not None else set()
    if not record.front.kind.compiled:
        return PYTHON_GATES
    return (REQUIRED_GATES if record.front.kind.binds_torch else _WITHOUT_TORCH) | named


def _imported(record: Record) -> bool:
    kind = record.front.kind
    proofs = [proof for gate in record.gates if gate.passed and (proof := ImportProof.parse(gate.name)) is not None]
    if not kind.compiled:
        return bool(proofs)  # it names no torches: its metadata says which
    if not kind.binds_torch:
        return True
    served = {cell.torch for cell in record.cells}
    return any(proof.torch in served for proof in proofs)


def _gpu_reasons(record: Record) -> list[str]:
    gpu = record.gpu
    if gpu is None:
        return ["no smoke tests on a GPU (nox -s smoke)"]
    of_another = "sha256" in gpu and gpu["sha256"] != record.wheel.sha256
    return [
        *(["the smoke tests on a GPU are of other bytes"] if of_another else []),
        *(["a smoke test on a GPU failed, or none passed"] if gpu.get("failed") != 0 or not gpu.get("passed") else []),
        *(["only a part of the smoke tests was run on a GPU"] if gpu.get("complete") is not True else []),
        *(f"the smoke tests on a GPU do not name their {key}" for key in _named(record) if not gpu.get(key)),
    ]


def _named(record: Record) -> tuple[str, ...]:
    return (*_GPU_KEYS, *(["torch"] if record.front.kind.binds_torch else []))


def gpu_proof(record: Record) -> GpuProof | None:
    """What a catalog says of the smoke tests; None where they prove nothing."""
    gpu = record.gpu
    if gpu is None or _gpu_reasons(record):
        return None
    return GpuProof(
        gpu=str(gpu["gpu"]),
        driver=str(gpu["driver"]),
        torch=str(gpu["torch"]) if gpu.get("torch") else None,
        passed=int(gpu["passed"]),
        speeds=tuple(_speed(found) for found in gpu.get("tflops", ())),
    )


def _speed(found: Mapping[str, Any]) -> Speed:
    """Write a shape in the words of gpu.json: "batch 4 seqlen 4096 heads 16 head_dim 128 causal bfloat16"."""
    words = [f"{key} {found[key]}" for key in ("batch", "seqlen", "heads", "head_dim") if key in found]
    words += ["causal"] if found.get("causal") else []
    words += [str(found["dtype"])] if "dtype" in found else []
    return Speed(shape=" ".join(words), tflops=float(found["tflops"]))
