"""From the shapes of the files to the values of hopperforge.model; what arrives here was checked and converts."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from hopperforge.config.files import (
    BasesFile,
    CiShape,
    DebianBaseShape,
    DebianShape,
    ExclusionShape,
    MatrixFile,
    PinnedWheel,
    RedistShape,
    RegistryBaseShape,
    ToolkitShape,
    TorchShape,
)
from hopperforge.config.files_recipe import (
    FrontShape,
    KernelsShape,
    MergeShape,
    ProfileShape,
    PromiseShape,
    PythonFrontShape,
    RecipeFile,
)
from hopperforge.config.files_upstream import LicenceShape, PinShape, SdistShape
from hopperforge.model.front import Front, FrontKind, OwnKernels
from hopperforge.model.image import DebianBase, ImageFacts, RegistryBase
from hopperforge.model.matrix import CiCell, Exclusion, JaxFact, Matrix, TorchFact
from hopperforge.model.profile import Budget, Profile, compute_capability
from hopperforge.model.recipe import Cudart, MergeRule, PackageNames, Promise, Recipe
from hopperforge.model.toolkit import OLDEST_ARCHITECTURE, DebianPackage, PinnedFile, Redist, ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import GitOrigin, Licence, SdistOrigin, UpstreamPin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion

_MEGABYTE = 10**6
_ASSEMBLED = frozenset({ToolkitOrigin.REGISTRY, ToolkitOrigin.REDIST})


def to_matrix(shape: MatrixFile) -> Matrix:
    """matrix.yaml as a value; versions ascend."""
    toolkits = {
        fact.version: fact
        for text, toolkit in shape.toolkits.items()
        for fact in _toolkits(CudaVersion.parse(text), toolkit)
    }
    torches = {TorchVersion.parse(text): torch for text, torch in shape.torch.items()}
    return Matrix(
        toolkits={version: toolkits[version] for version in sorted(toolkits)},
        torches={version: _torch(version, torches[version]) for version in sorted(torches)},
        pythons=_pythons(shape.pythons),
        default_toolkit=None if shape.default_toolkit is None else ToolkitVersion.parse(shape.default_toolkit),
        stable_floor=TorchVersion.parse(shape.stable_floor),
        jax=None if shape.jax is None else JaxFact(release=shape.jax.release, wheel=_wheel(shape.jax.wheel)),
        platforms={name: shape.platforms[name].declared_only for name in shape.platforms},
        exclusions=tuple(_exclusion(exclusion) for exclusion in shape.exclusions),
        ci=tuple(_ci_cell(cell) for cell in shape.ci),
    )


def _toolkits(cuda: CudaVersion, shape: ToolkitShape) -> Iterator[ToolkitFact]:
    """Give the toolkit, and one more for each newer assembler it can have.

    Those are put together by us, so neither a machine nor an image can have one.
    """
    plain = ToolkitFact(
        version=ToolkitVersion.of(cuda),
        release=shape.release,
        driver=shape.driver,
        gcc_max=shape.gcc_max,
        compress=tuple(shape.compress),
        origins=tuple(ToolkitOrigin(origin) for origin in shape.origins),
        wheels=tuple(_wheel(wheel) for wheel in shape.wheels),
        debian=tuple(_debian(package) for package in shape.debian),
        redist=None if shape.redist is None else _redist(shape.redist),
        image=shape.image,
        oldest=compute_capability(shape.oldest or OLDEST_ARCHITECTURE),
    )
    yield plain
    for text, wheel in shape.ptxas.items():
        yield replace(
            plain,
            version=ToolkitVersion(cuda, CudaVersion.parse(text)),
            origins=tuple(origin for origin in plain.origins if origin in _ASSEMBLED),
            image=None,
            ptxas=_wheel(wheel),
        )


def _debian(shape: DebianShape) -> DebianPackage:
    return DebianPackage(pool=shape.pool, sha256=shape.sha256, members=dict(shape.members))


def _redist(shape: RedistShape) -> Redist:
    return Redist(manifest=shape.manifest, sha256=shape.sha256, components=tuple(shape.components))


def _torch(version: TorchVersion, shape: TorchShape) -> TorchFact:
    return TorchFact(
        version=version,
        release=shape.release,
        index_cuda=CudaVersion.parse(shape.index_cuda),
        cuda=tuple(sorted(CudaVersion.parse(text) for text in shape.cuda)),
        pythons=_pythons(shape.pythons),
        wheel=None if shape.wheel is None else _wheel(shape.wheel),
        cxx11_abi=shape.cxx11_abi,
        cxx_standard=shape.cxx_standard,
    )


def _pythons(texts: list[str]) -> tuple[PythonVersion, ...]:
    return tuple(sorted(PythonVersion.parse(text) for text in texts))


def _wheel(shape: PinnedWheel) -> PinnedFile:
    return PinnedFile(project=shape.project, filename=shape.filename, sha256=shape.sha256)


def _ci_cell(shape: CiShape) -> CiCell:
    return CiCell(cuda=ToolkitVersion.parse(shape.cuda), torch=TorchVersion.parse(shape.torch), engine=shape.engine)


def _exclusion(shape: ExclusionShape) -> Exclusion:
    return Exclusion(
        cuda=None if shape.cuda is None else ToolkitVersion.parse(shape.cuda),
        torch=None if shape.torch is None else TorchVersion.parse(shape.torch),
        python=None if shape.python is None else PythonVersion.parse(shape.python),
        reason=shape.reason,
    )


def to_recipes(shapes: Mapping[Path, RecipeFile]) -> dict[str, Recipe]:
    """Every recipe.yaml as a value, by name; the keys are the folders they lie in."""
    by_name = {folder.name: shape for folder, shape in shapes.items()}
    return {folder.name: _recipe(shape, folder, by_name) for folder, shape in shapes.items()}


def _recipe(shape: RecipeFile, folder: Path, others: Mapping[str, RecipeFile]) -> Recipe:
    kernels = shape.kernels or KernelsShape()
    kernels_of = shape if kernels.of is None else others[kernels.of]
    return Recipe(
        name=shape.name,
        folder=folder,
        pin=shape.pin,
        package=PackageNames(
            distribution=shape.package.distribution,
            package=shape.package.package,
            module=shape.package.module,
            version=shape.package.version,
            summary=shape.package.summary,
        ),
        promise=None if shape.promise is None else _promise(shape, shape.promise),
        cudart=Cudart(shape.cudart or Cudart.STATIC),
        needed=frozenset(shape.needed or ()),
        needed_per_torch=None if shape.needed_per_torch is None else frozenset(shape.needed_per_torch),
        default_profile=shape.default_profile,
        profiles={
            name: _profile(name, profile, kernels_of.profiles.get(name, profile))
            for name, profile in shape.profiles.items()
        },
        merge=tuple(_merge_rule(name, rule) for name, rule in kernels_of.merge.items()),
        front=_front(shape.front, folder),
        kernels=None
        if kernels.own is None or kernels.epoch is None
        else OwnKernels(units=kernels.own, flags=tuple(kernels.flags), epoch=kernels.epoch),
    )


def _promise(shape: RecipeFile, promise: PromiseShape) -> Promise:
    return Promise(
        module=shape.package.module,
        operators=tuple(f"{shape.package.package}::{operator}" for operator in promise.operators),
        function=promise.function,
        guard=promise.guard,
    )


def _front(shape: FrontShape | PythonFrontShape | None, folder: Path) -> Front:
    if shape is None:
        return Front()
    if isinstance(shape, PythonFrontShape):
        return Front(
            kind=FrontKind(shape.kind),
            symbols=(),
            requires=tuple(shape.requires),
            requires_python=shape.requires_python,
            epoch=shape.epoch,
        )
    return Front(
        kind=FrontKind(shape.kind),
        sources=tuple(shape.sources),
        shares=None if shape.shares is None else folder.parent / shape.shares,
        library=shape.library,
        exports=shape.exports,
        symbols=tuple(shape.symbols),
        wrap=tuple(shape.wrap),
        archive=shape.archive,
        programs={place: tuple(sources) for place, sources in shape.programs.items()},
        files=dict(shape.files),
        requires=tuple(shape.requires),
        requires_python=shape.requires_python,
        tarball=shape.tarball,
    )


def _merge_rule(name: str, shape: MergeShape) -> MergeRule:
    return MergeRule(name=name, units=shape.units, vary=tuple(shape.vary), largest=shape.largest)


def _profile(name: str, shape: ProfileShape, kernels_of: ProfileShape) -> Profile:
    """A profile; what is compiled is as `kernels_of` says, its own profile or that of the same name elsewhere."""
    return Profile(
        name=name,
        summary=shape.summary,
        switches=frozenset(kernels_of.switches or ()),
        architectures=frozenset(kernels_of.architectures or ()),
        ptx=frozenset(kernels_of.ptx),
        budget=Budget(wheel=megabytes(shape.budget.wheel), library=megabytes(shape.budget.library or "0 MB")),
    )


def megabytes(text: str) -> int:
    """Bytes of "27.6 MB"; MB is 10^6 bytes, and decimals are exact."""
    return int(Decimal(text.removesuffix(" MB")) * _MEGABYTE)


def to_pin(name: str, shape: PinShape) -> UpstreamPin:
    """A pin of upstream.yaml as a value."""
    return UpstreamPin(
        name=name,
        commit=shape.commit,
        epoch=shape.epoch,
        trees=dict(shape.trees),
        origins=tuple(
            SdistOrigin(project=origin.project, filename=origin.filename, sha256=origin.sha256, folder=origin.folder)
            if isinstance(origin, SdistShape)
            else GitOrigin(url=origin.url)
            for origin in shape.origins
        ),
        licences=tuple(_licence(licence) for licence in shape.licences),
    )


def _licence(shape: LicenceShape) -> Licence:
    found = shape.archive
    return Licence(
        path=shape.path,
        sha256=shape.sha256,
        archive=PinnedFile(project=found.project, filename=found.filename, sha256=found.sha256) if found else None,
    )


def to_images(shape: BasesFile) -> ImageFacts:
    """image/bases.yaml as a value."""
    return ImageFacts(
        bases={name: _base(name, base) for name, base in shape.bases.items()},
        default=shape.default,
        tools=tuple(_wheel(wheel) for wheel in shape.tools),
    )


def _base(name: str, shape: DebianBaseShape | RegistryBaseShape) -> DebianBase | RegistryBase:
    match shape:
        case DebianBaseShape():
            return DebianBase(
                name=name,
                suite=shape.suite,
                packages=tuple(shape.packages),
                floor=shape.floor,
                moves=shape.moves,
            )
        case RegistryBaseShape():
            return RegistryBase(name=name, image=shape.image, tag=shape.tag, floor=shape.floor, search=shape.search)
