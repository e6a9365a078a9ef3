"""What every front is made of, whatever it binds to: the values that decide its bytes, and what is written of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from hopperforge.errors import InputError
from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.image import Image
from hopperforge.model.matrix import JaxFact, TorchFact
from hopperforge.model.toolkit import HostCompiler, PinnedFile, Toolkit, ToolkitFact
from hopperforge.model.upstream import PatchedSource
from hopperforge.run.engine import ON_HOST, Engine
from hopperforge.stages.zip_writer import writer_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontInputs:
    """What decides a front's bytes, beside the kernels.

    `toolkit` and `compiler` are where the engine's commands find them; `torch_fact` is None where the front binds to
    no torch, `jax_fact` where not to jax; `licences` are the texts that the package hands on, by name; `image` is None
    on the host; `archivers` are the versions of what makes the static library, where there is one.
    """

    build: Build
    source: PatchedSource
    toolkit: Toolkit
    toolkit_fact: ToolkitFact
    compiler: HostCompiler
    torch_fact: TorchFact | None = None
    jax_fact: JaxFact | None = None
    licences: Mapping[str, bytes] = field(default_factory=dict)
    engine: Engine = ON_HOST
    image: Image | None = None
    archivers: Mapping[str, str] = field(default_factory=dict)

    @property
    def torch(self) -> TorchFact:
        """The torch the front binds against, of a front that does."""
        if self.torch_fact is None:
            raise InputError(f"recipe {self.build.recipe.name} binds to no torch")
        return self.torch_fact

    @property
    def torch_wheel(self) -> PinnedFile:
        """The torch build the front binds against; the matrix names one for every torch a build can have."""
        if self.torch.wheel is None:
            raise InputError(
                f"matrix.yaml pins no wheel for torch {self.torch.version}", hint="add `wheel:` to that torch"
            )
        return self.torch.wheel


def licence_hashes(inputs: FrontInputs) -> dict[str, str]:
    """Hash the licences that go into the package, by the names they have there."""
    return {name: hashlib.sha256(text).hexdigest() for name, text in inputs.licences.items()}


IMAGE_WRITERS: Final = ("setuptools", "auditwheel")
"""What writes a wheel where upstream's front is bound: in the image, or beside hopperforge on the host."""


def writers(image: Image | None) -> dict[str, str]:
    """List what writes a wheel's bytes beside the compilers, with versions; those of the end are always this one's."""
    found = packaging_writers() if image is None else {name: image.tools[name] for name in IMAGE_WRITERS}
    return found | last_writers()


def packaging_writers() -> dict[str, str]:
    """Give this machine's versions of them."""
    return {name: version(name) for name in IMAGE_WRITERS}


def last_writers(*, tarball: bool = False) -> dict[str, str]:
    """List what writes the end of a wheel's bytes, on this machine whatever the engine, and those of a `tarball`."""
    found = {"cyclonedx-python-lib": version("cyclonedx-python-lib"), **writer_versions()}
    return found | ({"zstandard": version("zstandard")} if tarball else {})


def build_facts(inputs: FrontInputs) -> dict[str, object]:
    """Gather what a package must know of its own build, by name."""
    build = inputs.build
    facts: dict[str, object] = {
        "VERSION": build.version,
        "PROFILE": build.profile.name,
        "CUDA": str(inputs.toolkit.version.cuda),
        "DRIVER": inputs.toolkit_fact.driver,
    }
    if build.torch is not None:
        facts |= {"TORCH": str(build.torch), "TORCH_ABI": build.abi.value, "CXX11_ABI": inputs.torch.cxx11_abi}
    return facts


def build_info(inputs: FrontInputs) -> str:
    """Write what the import guard must know of this build as a Python module."""
    lines = ['"""What this build contains; written by hopperforge."""', ""]
    lines += [f"{name} = {value!r}" for name, value in build_facts(inputs).items()]
    switches = ", ".join(repr(switch) for switch in sorted(inputs.build.profile.switches))
    return "\n".join([*lines, f"SWITCHES = frozenset([{switches}])", ""])


def requirements(build: Build) -> tuple[str, ...]:
    """Say what the wheel needs, as Requires-Dist writes it."""
    match build.abi:
        case AbiClass.STABLE:
            return (f"torch>={build.torch}", *build.recipe.front.requires)
        case AbiClass.PER_TORCH:
            return (f"torch=={build.torch}.*",)
        case AbiClass.NONE:
            return build.recipe.front.requires
