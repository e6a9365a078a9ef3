"""From the shapes of the files to the values of hopperforge.model; what arrives here was checked and converts."""

from decimal import Decimal
from pathlib import Path

from hopperforge.config.files import (
    BasesFile,
    DebianBaseShape,
    ExclusionShape,
    MatrixFile,
    PinnedWheel,
    PinShape,
    ProfileShape,
    RecipeFile,
    RegistryBaseShape,
    SdistShape,
    ToolkitShape,
    TorchShape,
)
from hopperforge.model.image import DebianBase, ImageFacts, RegistryBase
from hopperforge.model.matrix import Exclusion, Matrix, TorchFact
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.toolkit import PinnedFile, ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import GitOrigin, SdistOrigin, UpstreamPin
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion

_MEGABYTE = 10**6


def to_matrix(shape: MatrixFile) -> Matrix:
    """matrix.yaml as a value; versions ascend."""
    toolkits = {CudaVersion.parse(text): toolkit for text, toolkit in shape.toolkits.items()}
    torches = {TorchVersion.parse(text): torch for text, torch in shape.torch.items()}
    return Matrix(
        toolkits={version: _toolkit(version, toolkits[version]) for version in sorted(toolkits)},
        torches={version: _torch(version, torches[version]) for version in sorted(torches)},
        pythons=_pythons(shape.pythons),
        stable_floor=TorchVersion.parse(shape.stable_floor),
        exclusions=tuple(_exclusion(exclusion) for exclusion in shape.exclusions),
    )


def _toolkit(version: CudaVersion, shape: ToolkitShape) -> ToolkitFact:
    return ToolkitFact(
        version=version,
        release=shape.release,
        driver=shape.driver,
        gcc_max=shape.gcc_max,
        origins=tuple(ToolkitOrigin(origin) for origin in shape.origins),
        wheels=tuple(_wheel(wheel) for wheel in shape.wheels),
    )


def _torch(version: TorchVersion, shape: TorchShape) -> TorchFact:
    return TorchFact(
        version=version,
        release=shape.release,
        index_cuda=CudaVersion.parse(shape.index_cuda),
        cuda=tuple(sorted(CudaVersion.parse(text) for text in shape.cuda)),
        pythons=_pythons(shape.pythons),
        wheel=None if shape.wheel is None else _wheel(shape.wheel),
    )


def _pythons(texts: list[str]) -> tuple[PythonVersion, ...]:
    return tuple(sorted(PythonVersion.parse(text) for text in texts))


def _wheel(shape: PinnedWheel) -> PinnedFile:
    return PinnedFile(project=shape.project, filename=shape.filename, sha256=shape.sha256)


def _exclusion(shape: ExclusionShape) -> Exclusion:
    return Exclusion(
        cuda=None if shape.cuda is None else CudaVersion.parse(shape.cuda),
        torch=None if shape.torch is None else TorchVersion.parse(shape.torch),
        python=None if shape.python is None else PythonVersion.parse(shape.python),
        reason=shape.reason,
    )


def to_recipe(shape: RecipeFile, folder: Path) -> Recipe:
    """A recipe.yaml as a value; `folder` is where it lies."""
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
        cudart=Cudart(shape.cudart),
        needed=frozenset(shape.needed),
        default_profile=shape.default_profile,
        profiles={name: _profile(name, profile) for name, profile in shape.profiles.items()},
    )


def _profile(name: str, shape: ProfileShape) -> Profile:
    return Profile(
        name=name,
        summary=shape.summary,
        switches=frozenset(shape.switches),
        architectures=frozenset(shape.architectures),
        budget=Budget(wheel=megabytes(shape.budget.wheel), library=megabytes(shape.budget.library)),
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
            return DebianBase(name=name, suite=shape.suite, packages=tuple(shape.packages), floor=shape.floor)
        case RegistryBaseShape():
            return RegistryBase(name=name, image=shape.image, tag=shape.tag, floor=shape.floor)
