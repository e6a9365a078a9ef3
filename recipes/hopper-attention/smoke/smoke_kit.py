"""The package under test as `smoke_common` takes it: Python alone, beside the torch of this Python."""

from __future__ import annotations

from pathlib import Path

import torch
from smoke_common.machine import torch_facts
from smoke_common.wheel import Build, WheelUnderTest, import_from, unpack

PACKAGE = "hopper_attention"


def load_subject(path: Path, folder: Path) -> WheelUnderTest:
    """Unpack and import the wheel; there is one profile, and the CUDA is torch's."""
    wheel = unpack(path, folder)
    import_from(wheel, PACKAGE)
    return WheelUnderTest(wheel, Build(profile="pure", cuda=str(torch.version.cuda), switches=frozenset()))


def missing_gpu(_: WheelUnderTest) -> str | None:
    """Why this is no proof on a GPU; the package itself runs on CPUs as well."""
    return None if torch.cuda.is_available() else "torch finds no GPU, and without --wheel the CPU will do"


def machine_facts(_: WheelUnderTest) -> dict[str, str]:
    """The machine, as gpu.json names it."""
    return torch_facts(torch)
