"""The record stage: what a build was made of and what it passed, gathered for the wheelhouse."""

import hashlib
from collections.abc import Mapping

from hopperforge.model.cell import Build
from hopperforge.model.image import Image
from hopperforge.model.pack import KernelPack
from hopperforge.model.record import (
    RECORD_FORMAT,
    CompilerFacts,
    FileFacts,
    FrontFacts,
    ImageFacts,
    PackFacts,
    Record,
    ServedCell,
    SourceFacts,
    ToolFacts,
    ToolkitFacts,
    UnitFacts,
    WheelFacts,
)
from hopperforge.model.upstream import PatchedSource
from hopperforge.model.wheel import Tarball, VerifiedWheel
from hopperforge.provenance.contents import Contents
from hopperforge.provenance.sbom import make_sbom
from hopperforge.stages.front_inputs import FrontInputs, licence_hashes
from hopperforge.stages.fronts import framework_facts, front_flags, front_sources, front_writers


def make_record(
    build: Build,
    contents: Contents,
    build_key: str,
    *,
    pack: KernelPack | None,
    verified: VerifiedWheel,
    engine: str,
    made_by: ToolFacts,
    timings: Mapping[str, float],
    created: str,
) -> Record:
    """Gather the record of a verified wheel; `timings` are seconds by stage, `created` a UTC time in text."""
    return Record(
        format=RECORD_FORMAT,
        name=contents.name,
        version=contents.version,
        wheel=WheelFacts(
            file=verified.path.name,
            sha256=verified.sha256,
            size=verified.size,
            library_size=verified.library_size,
            platform_tags=verified.platform_tags,
        ),
        tarball=_tarball_facts(verified.tarball),
        build_key=build_key,
        recipe=build.recipe.name,
        profile=build.profile.name,
        switches=tuple(sorted(build.profile.switches)),
        architectures=tuple(sorted(build.profile.architectures | build.profile.ptx)),
        cells=tuple(ServedCell.of(accepted) for accepted in build.cells),
        source=contents.source,
        toolkit=contents.toolkit,
        host_compiler=contents.host_compiler,
        engine=engine,
        image=contents.image,
        kernels=build.kernels,
        pack=_pack_facts(pack) if pack is not None else None,
        front=contents.front,
        licences=contents.licences,
        sbom=hashlib.sha256(make_sbom(contents)).hexdigest(),
        gates=verified.gates,
        gpu=None,
        reproduced=(),
        made_by=made_by,
        timings=dict(timings),
        created=created,
    )


def _tarball_facts(tarball: Tarball | None) -> FileFacts | None:
    if tarball is None:
        return None
    return FileFacts(file=tarball.path.name, sha256=tarball.sha256, size=tarball.size)


def contents_of(inputs: FrontInputs) -> Contents:
    """Say what a package will be made of, before it is."""
    build, toolkit, compiler = inputs.build, inputs.toolkit, inputs.compiler
    return Contents(
        name=build.recipe.package.distribution,
        version=build.version,
        source=_source_facts(inputs.source),
        toolkit=ToolkitFacts(
            version=toolkit.version, release=toolkit.release, origin=toolkit.origin, fingerprint=toolkit.fingerprint
        ),
        host_compiler=CompilerFacts(version=compiler.version, fingerprint=compiler.fingerprint),
        image=_image_facts(inputs.image) if inputs.image is not None else None,
        front=FrontFacts(
            kind=build.recipe.front.kind,
            framework=framework_facts(inputs),
            sources=front_sources(inputs),
            flags=front_flags(inputs),
            tools=front_writers(inputs),
        ),
        licences=licence_hashes(inputs),
    )


def _source_facts(source: PatchedSource) -> SourceFacts:
    return SourceFacts(
        pin=source.pin.name,
        commit=source.pin.commit,
        epoch=source.pin.epoch,
        trees=source.pin.trees,
        origin=source.origin,
        patches=source.patches,
        kernel_tree=source.kernel_tree,
        front_tree=source.front_tree,
    )


def _pack_facts(pack: KernelPack) -> PackFacts:
    units = (
        UnitFacts(
            path=unit.path,
            sources=unit.sources,
            key=unit.key,
            sha256=unit.sha256,
            size=unit.size,
            seconds=unit.cost.seconds if unit.cost else None,
            peak_rss=unit.cost.peak_rss if unit.cost else None,
        )
        for unit in pack.units
    )
    return PackFacts(key=pack.key, sha256=pack.sha256, units=tuple(units))


def _image_facts(image: Image) -> ImageFacts:
    return ImageFacts(id=image.id, base=image.base.name, base_id=image.base.id, floor=image.floor)
