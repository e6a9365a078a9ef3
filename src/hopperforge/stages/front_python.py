"""Fronts of Python alone: a wheel of a recipe's folder `python`, for every machine.

Nothing is compiled, so there is no toolkit, no host compiler, no image and no repair: the same bytes come out wherever
they are written. What is judged of them is in `gates_python`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hopperforge.model.cell import ANY_PLATFORM, Build
from hopperforge.model.keys import content_key
from hopperforge.model.record import FrontFacts, SourceFacts
from hopperforge.model.upstream import UpstreamPin
from hopperforge.model.wheel import RepairedWheel
from hopperforge.provenance.contents import PURE_EXPRESSION, Contents
from hopperforge.provenance.sbom import make_sbom
from hopperforge.run.workspace import Workspace
from hopperforge.stages.front_inputs import last_writers
from hopperforge.stages.front_layout import python_files, write_package
from hopperforge.stages.front_sources import python_sources
from hopperforge.stages.licences import own_licence

_ORIGIN = "the recipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonInputs:
    """What decides the bytes of a package of Python alone; `sources` are the recipe's files by sha256."""

    build: Build
    pin: UpstreamPin
    sources: Mapping[str, str]
    licences: Mapping[str, bytes]

    @classmethod
    def read(cls, build: Build, pin: UpstreamPin, workspace: Workspace) -> "PythonInputs":
        """Take the recipe's files as they are now."""
        return cls(build=build, pin=pin, sources=python_sources(build), licences=own_licence(workspace))

    @property
    def contents(self) -> Contents:
        """What the package will be made of."""
        return Contents(
            name=self.build.recipe.package.distribution,
            version=self.build.version,
            source=SourceFacts(
                pin=self.pin.name,
                commit="",
                epoch=self.pin.epoch,
                trees={},
                origin=_ORIGIN,
                patches={},
                kernel_tree="",
                front_tree=content_key("python", dict(self.sources)),
            ),
            toolkit=None,
            host_compiler=None,
            image=None,
            front=FrontFacts(
                kind=self.build.recipe.front.kind,
                framework=None,
                sources=self.sources,
                flags=(),
                tools=last_writers(),
            ),
            licences={name: sha256(text).hexdigest() for name, text in self.licences.items()},
        )

    @property
    def key(self) -> str:
        """The build key: all that changes the package's bytes."""
        front, package = self.build.recipe.front, self.build.recipe.package
        return content_key(
            "python-build",
            {
                "sources": dict(self.sources),
                "package": [package.distribution, package.package, package.summary, self.build.version],
                "requires": list(front.requires),
                "requires_python": front.requires_python,
                "licence": PURE_EXPRESSION,
                "sbom": sha256(make_sbom(self.contents)).hexdigest(),
                "epoch": self.pin.epoch,
                "writers": last_writers(),
            },
        )


def make_python_wheel(inputs: PythonInputs, out: Path) -> RepairedWheel:
    """Write the wheel to `out`; its bytes depend on the recipe's files and what `PythonInputs.key` has, alone."""
    files = dict(python_files(inputs.build.recipe.folder / "python"))
    path = write_package(
        inputs.build,
        (files, frozenset()),
        licences=inputs.licences,
        epoch=inputs.pin.epoch,
        out=out,
        sbom=make_sbom(inputs.contents),
    )
    return RepairedWheel(path=path, platform_tags=(ANY_PLATFORM,))
