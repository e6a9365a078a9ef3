"""Which front a build has, and what is asked of each alike: its framework, its key, its flags, its wheel."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from hopperforge.model.machine import Sizing
from hopperforge.model.pack import KernelPack
from hopperforge.model.record import TORCH, FrameworkFacts
from hopperforge.model.wheel import RawWheel
from hopperforge.run.workspace import Workspace
from hopperforge.stages import front_own, front_torch
from hopperforge.stages.front_inputs import FrontInputs, writers
from hopperforge.stages.front_sources import front_sources as own_sources
from hopperforge.stages.jax_kit import obtain_jax_kit
from hopperforge.stages.torch_kit import TorchKit, obtain_torch_kit

JAXLIB: Final = "jaxlib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """The framework a front is bound with, unpacked in `root`; `torch` is None if it is another, both without one."""

    root: Path | None
    torch: TorchKit | None = None


def build_key(inputs: FrontInputs, kernels: str, sbom: bytes) -> str:
    """Key a package by all that changes its bytes; `kernels` is the key of its pack, or of its sources inline."""
    if not inputs.build.recipe.front.kind.own:
        return front_torch.build_key(inputs, kernels, sbom)
    return front_own.own_build_key(inputs, _placeless(inputs), kernels, sha256(sbom).hexdigest())


def _placeless(inputs: FrontInputs) -> front_own.Headers | None:
    """Headers with no place of this machine, for keys and records."""
    return front_own.headers_of(inputs, Path("framework"))


def front_flags(inputs: FrontInputs) -> tuple[str, ...]:
    """List the flags of compile and link, without places."""
    if not inputs.build.recipe.front.kind.own:
        return (*front_torch.compile_arguments(inputs.torch), *front_torch.placeless_link(inputs.build))
    return front_own.front_flags(inputs, _placeless(inputs))


def front_writers(inputs: FrontInputs) -> Mapping[str, str]:
    """List what writes a wheel's bytes beside the compilers, with versions."""
    front = inputs.build.recipe.front
    return front_own.own_writers(front) if front.kind.own else writers(inputs.image)


def front_sources(inputs: FrontInputs) -> Mapping[str, str]:
    """Hash the recipe's own sources; upstream's front has those of the patched source alone."""
    return own_sources(inputs.build) if inputs.build.recipe.front.kind.own else {}


def framework_facts(inputs: FrontInputs) -> FrameworkFacts | None:
    """Name the framework by the wheel its headers are taken from."""
    if inputs.jax_fact is not None:
        return FrameworkFacts(name=JAXLIB, release=inputs.jax_fact.release, wheel_sha256=inputs.jax_fact.wheel.sha256)
    if inputs.torch_fact is None:
        return None
    return FrameworkFacts(name=TORCH, release=inputs.torch.release, wheel_sha256=inputs.torch_wheel.sha256)


def obtain_kit(inputs: FrontInputs, workspace: Workspace) -> Kit:
    """Fetch and unpack the framework that a front is bound with."""
    if inputs.jax_fact is not None:
        return Kit(root=obtain_jax_kit(inputs.jax_fact, workspace))
    if inputs.torch_fact is None:
        return Kit(root=None)
    kit = obtain_torch_kit(inputs.torch_fact, workspace)
    return Kit(root=kit.root, torch=kit)


def bind(
    inputs: FrontInputs, pack: KernelPack | None, kit: Kit, *, sizing: Sizing, out: Path, workspace: Workspace
) -> RawWheel:
    """Make the wheel in `out`, tagged for the machine it was linked on; without a pack upstream compiles kernels."""
    if pack is not None and inputs.build.recipe.front.kind.own:
        headers = front_own.headers_of(inputs, kit.root)
        return front_own.bind_own(inputs, pack, headers, jobs=sizing.max_jobs, out=out, workspace=workspace)
    torch = kit.torch or obtain_torch_kit(inputs.torch, workspace)
    return front_torch.bind(inputs, pack, torch, sizing=sizing, out=out, workspace=workspace)
