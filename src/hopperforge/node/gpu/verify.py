"""verify-install: the whole chain on this node, link after link."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from hopperforge.node.gpu.backends import Backend, find_backends
from hopperforge.node.gpu.chain import (
    FAILED,
    GPU,
    OK,
    TROUBLE,
    UNCHECKED,
    Link,
    Speed,
    machine_links,
    number_link,
    recorded_shapes,
    speed_link,
)
from hopperforge.node.gpu.inputs import bound_of, error_of, make_inputs, task_of
from hopperforge.node.gpu.proof import WheelFile, installed_link, record_link, signature_link
from hopperforge.node.gpu.timing import Spread, Timer
from hopperforge.node.gpu.words import CHOOSER, Shape, VerifyWords, WordsError
from hopperforge.node.installed import import_trouble, installed_under
from hopperforge.node.looking import isolated
from hopperforge.node.program import look
from hopperforge.node.signatures import TrustedKey, read_key
from hopperforge.node.values import Node
from hopperforge.node.versions import normal

BACKEND_OF = {
    "fa3-fwd": "fa3_fwd",
    "flash-attn-3": "flash_attn_3",
    "flash-attn": "flash_attn_2",
    "flash-attn-fp32": "fp32",
    "hopper-attention": CHOOSER,
}
"""What calls a project's kernels."""
SAMPLES = 30
GPU_SECONDS = 300.0
_HEAD_DIMS = (128, 64, 96, 192, 256)
_HINT = "hopperforge verify-install wheelhouse/WHEEL key=PUBLIC.pem"


def verify(asked: VerifyWords, paths: Sequence[str], now: datetime) -> tuple[Link, ...]:
    """Look at every link, in the order in which they hold one another; `paths` are the folders of packages.

    With keys, nothing of a package is run unless it is the wheel that one of them signed.
    """
    wheel = _wheel(asked.subject)
    project = wheel.project if wheel else normal(asked.subject)
    keys = _keys(asked.keys)
    node, own = look(paths, ()), installed_under(paths)
    machine = machine_links(node, project)
    installed, one = installed_link(project, own, paths, wheel)
    place = Path(asked.record) if asked.record else wheel.beside(".json") if wheel else None
    recorded, record = record_link(place, one, wheel)
    signature = signature_link(wheel, keys, now)
    proven = not keys or (installed.state == OK and signature.state == OK)
    imported = _import_link(one, node) if proven else Link("import", UNCHECKED, "it is not proven, and was not run")
    broken = any(link.state in (FAILED, UNCHECKED) for link in (*machine, imported))
    return (
        *machine,
        installed,
        recorded,
        signature,
        imported,
        *(_not_on_gpu() if broken else _gpu_links(project, node, record)),
    )


def _wheel(subject: str) -> WheelFile | None:
    if not subject.endswith(".whl"):
        return None
    try:
        return WheelFile.of(Path(subject))
    except OSError as error:
        raise WordsError([f"{subject} cannot be read: {error.strerror}"], _HINT) from error


def _keys(places: Sequence[str]) -> list[TrustedKey]:
    try:
        return [read_key(Path(place).read_text(encoding="utf-8"), place) for place in places]
    except OSError as error:
        raise WordsError([f"key={error.filename} cannot be read: {error.strerror}"], _HINT) from error
    except ValueError as error:
        raise WordsError([str(error)], _HINT) from error


def _import_link(one: Distribution | None, node: Node) -> Link:
    if one is None:
        return Link("import", UNCHECKED, "there is nothing to import")
    if node.torch is None or node.torch.trouble is not None:
        return Link("import", UNCHECKED, "it needs a torch that can be imported")
    trouble = next(iter(import_trouble(one)), None)
    if trouble is not None:
        return Link("import", FAILED, trouble.what, trouble.mend, TROUBLE)
    return Link("import", OK, "in a process of its own")


def _not_on_gpu() -> tuple[Link, Link]:
    what = "needs the links above: no kernel was run"
    return Link("numbers", UNCHECKED, what, None, GPU), Link("speed", UNCHECKED, what, None, GPU)


def _gpu_links(project: str, node: Node, record: Mapping[str, Any] | None) -> tuple[Link, ...]:
    """Run kernels in a process of their own, for one that crashes or hangs is an answer as well."""
    name = BACKEND_OF.get(project)
    if name is None:
        what = f"kernels of {project} are not called here: its smoke tests do it (docs/how-to/verify.md)"
        return Link("numbers", UNCHECKED, what, None, GPU), Link("speed", UNCHECKED, what, None, GPU)
    answer = isolated(lambda: ask_gpu(name, record), GPU_SECONDS)
    if "trouble" in answer:
        failed = Link("numbers", FAILED, f"a kernel did not run: {answer['trouble']}", "hopperforge doctor", GPU)
        return failed, Link("speed", UNCHECKED, "no kernel ran to its end", None, GPU)
    speeds = [Speed(Shape(**one["shape"]), one["tflops"], one["recorded"]) for one in answer["speeds"]]
    return number_link(answer["checks"]), speed_link(speeds, node.gpus[0].name, record)


def ask_gpu(name: str, record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Check the numbers of an implementation, and time the shapes that its record has, or one of our own."""
    torch = importlib.import_module("torch")
    found, absent = find_backends(torch, [name])
    if absent:
        return {"trouble": absent[0].reason}
    backend = found[0]
    dtype, head_dim = backend.dtypes[0], _head_dim(name)
    plain = Shape(1, 256, 4, head_dim, dtype, causal=False, direction="forward")
    shapes = [plain, replace(plain, causal=True)]
    shapes += [replace(plain, causal=True, direction="backward")] if backend.backward else []
    checks = [
        {"what": shape.panel, "error": error_of(torch, backend, shape), "bound": bound_of(shape)} for shape in shapes
    ]
    own = [(replace(plain, batch=4, seqlen=4096, heads=16), None)]
    timer = Timer(torch, cold=False)  # as the smoke tests, whose figures the record holds
    speeds = [
        {"shape": asdict(shape), "tflops": _tflops(torch, timer, backend, shape), "recorded": figure}
        for shape, figure in recorded_shapes(record, dtype) or own
    ]
    return {"checks": checks, "speeds": speeds}


def _head_dim(name: str) -> int:
    """Choose a head dim that the profile has kernels for."""
    build = getattr(importlib.import_module("fa3_fwd"), "build_info", None) if name == "fa3_fwd" else None
    switches = build()["switches"] if build else ()
    return next((dim for dim in _HEAD_DIMS if f"DISABLE_HDIM{dim}" not in switches), _HEAD_DIMS[0])


def _tflops(torch: Any, timer: Timer, backend: Backend, shape: Shape) -> float:
    task = task_of(torch, backend, shape, make_inputs(torch, shape))
    _, queueing = timer.warm_up(task)
    return shape.operations / Spread.of(timer.turn(task, SAMPLES, queueing)).median / 1e9
