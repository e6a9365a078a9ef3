"""Builders: an engine with the toolkit and the host compiler as its commands find them."""

from dataclasses import dataclass

from hopperforge.model.image import DebianBase, Image, ImageFacts, RegistryBase
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitFact
from hopperforge.run.engine import Client, ContainerEngine, Engine, HostEngine
from hopperforge.run.workspace import Workspace
from hopperforge.stages.host_compiler import ThisMachine, find_archivers, find_host_compiler
from hopperforge.stages.image import find_image, image_archivers, image_compiler, image_toolkit, obtain_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Where a build's commands run; `image` is None on the host."""

    engine: Engine
    image: Image | None
    toolkit: Toolkit
    compiler: HostCompiler

    def archivers(self, workspace: Workspace) -> dict[str, str]:
        """Give the versions of what makes static libraries there; ToolError where it is missing."""
        if self.image is None:
            return find_archivers(ThisMachine(workspace.environ))
        return image_archivers(self.image, self.engine, workspace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """How containers are to be used: by which client, on which base, and whether a failed command's folder stays."""

    client: Client
    facts: ImageFacts
    base: DebianBase | RegistryBase
    keep: bool


def host_builder(toolkit: Toolkit, fact: ToolkitFact, workspace: Workspace) -> Builder:
    """Give this machine as a builder."""
    compiler = find_host_compiler(workspace.environ, fact.gcc_max)
    return Builder(engine=HostEngine(), image=None, toolkit=toolkit, compiler=compiler)


def image_builder(toolkit: Toolkit, fact: ToolkitFact, containers: Containers, workspace: Workspace) -> Builder:
    """Give containers as a builder, with base and image made if they are not at hand; see `obtain_image`."""
    image = obtain_image(containers.facts, containers.base, toolkit, containers.client, workspace)
    return _in_image(image, toolkit, fact, containers, workspace)


def found_image_builder(
    toolkit: Toolkit, fact: ToolkitFact, containers: Containers, workspace: Workspace
) -> Builder | None:
    """Give containers as a builder if base and image are at hand; makes nothing."""
    image = find_image(containers.facts, containers.base, toolkit, containers.client, workspace)
    return None if image is None else _in_image(image, toolkit, fact, containers, workspace)


def _in_image(
    image: Image, toolkit: Toolkit, fact: ToolkitFact, containers: Containers, workspace: Workspace
) -> Builder:
    engine = ContainerEngine(
        client=containers.client,
        image=image.reference,
        ground=image.base.id,
        reporter=workspace.reporter,
        keep=containers.keep,
    )
    compiler = image_compiler(image, fact.gcc_max, engine, workspace)
    return Builder(engine=engine, image=image, toolkit=image_toolkit(toolkit), compiler=compiler)
