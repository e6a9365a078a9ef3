"""The shapes of the three files, as pydantic models: what the reader checks and the editors' JSON Schemas say.

Only what one value shows by itself is checked here. Whether a name refers to something that exists is `checks`;
turning the models into values of hopperforge.model is `convert`. Nothing outside this package sees these models.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from hopperforge.model.image import SYSTEM_PATH

# Every pattern a string may have to match, and how a refusal describes it.
WORDING: Final[dict[str, str]] = {}


def worded(pattern: str, wording: str) -> str:
    """Note how a string that does not match `pattern` is described; gives the pattern."""
    WORDING[pattern] = wording
    return pattern


_VERSION = worded(r"^(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)$", 'is not a version of major and minor, such as "13.0"')
_TOOLKIT = worded(
    r"^(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(\+ptxas(0|[1-9][0-9]?)\.(0|[1-9][0-9]?))?$",
    'is not a toolkit, such as "13.0" or "12.4+ptxas12.9"',
)
_RELEASE = worded(r"^[0-9]+(\.[0-9]+){2}$", 'is not a full release, such as "13.0.88"')
_DRIVER = worded(r"^[0-9]+(\.[0-9]+){1,2}$", 'is not a driver version, such as "580.65.06"')
_SHA256 = worded(r"^[0-9a-f]{64}$", "is not a sha256: 64 digits of 0-9 and a-f")
_SHA1 = worded(r"^[0-9a-f]{40}$", "is not a git hash: 40 digits of 0-9 and a-f")
_PLAIN_ARCHITECTURE = worded(r"^sm_[0-9]+$", "is not a plain GPU architecture, such as sm_75")
_PLATFORM = worded(r"^[a-z]+_[a-z0-9_]+$", "is not a platform, such as linux_x86_64")
_NAME = worded(r"^[a-z0-9]+(-[a-z0-9]+)*$", "is not a name of small letters, digits and single hyphens")
_PIN = worded(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "is not a pin name: letters, digits, dots and hyphens")
_MODULE = worded(r"^[a-z_][a-z0-9_]*$", "is not a Python name in small letters")
_PROJECT = worded(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", "is not the name of a project on a package index")
_WHEEL = worded(r"^[A-Za-z0-9_.+-]+\.whl$", "is not the file name of a wheel")
_FOLDER = worded(
    r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$", "is not a folder below the root, such as a/b"
)
_FILE = worded(
    r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$", "is not a file below the root, such as a/b.txt"
)
_POOL = worded(
    r"^pool(/[a-z0-9][a-z0-9.+~_-]*)+\.deb$",
    "is not a package in a Debian mirror, such as pool/main/h/hello/hello_1.deb",
)
_COMPONENT = worded(r"^[a-z][a-z0-9_]*$", "is not a component of NVIDIA's manifests, such as cuda_nvcc")
_MANIFEST = worded(r"^https://\S+/[A-Za-z0-9_.-]+\.json$", "is not the https address of a JSON file")
_IMAGE = worded(r"^[a-z0-9][a-z0-9._:/@-]*$", "is not the name of a container image")
_TAG = worded(r"^manylinux_2_[0-9]+_(x86_64|aarch64)$", "is not a platform tag, such as manylinux_2_28_x86_64")
_IMAGE = worded(r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$", "is not a container image, such as quay.io/pypa/name")
_SEARCH = worded(r"^/[^:\s]*(:/[^:\s]*)*$", "is not a PATH of whole folder names, such as /usr/bin:/bin")
_DATED = worded(r"^[0-9]{4}[.-]?[0-9]{2}[.-]?[0-9]{2}[A-Za-z0-9.-]*$", "is not a dated tag, such as 2026.10.21-1")
_PACKAGE = worded(r"^[a-z0-9][a-z0-9+.-]+$", "is not the name of a Debian package")
_SENTENCE = worded(r"\S", "is blank")

Version = Annotated[str, Field(pattern=_VERSION)]
ToolkitName = Annotated[str, Field(pattern=_TOOLKIT)]
Release = Annotated[str, Field(pattern=_RELEASE)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
GitHash = Annotated[str, Field(pattern=_SHA1)]
Name = Annotated[str, Field(pattern=_NAME)]
Platform = Annotated[str, Field(pattern=_PLATFORM)]
PinName = Annotated[str, Field(pattern=_PIN)]
Module = Annotated[str, Field(pattern=_MODULE)]
ProjectName = Annotated[str, Field(pattern=_PROJECT)]
File = Annotated[str, Field(pattern=_FILE)]
Folder = Annotated[str, Field(pattern=_FOLDER)]
Sentence = Annotated[str, Field(pattern=_SENTENCE)]

DISTINCT: Final = {"uniqueItems": True}  # the reader's part of it is `checks.repeated`, which knows the place
Versions = Annotated[list[Version], Field(min_length=1, json_schema_extra=DISTINCT)]


class Shape(BaseModel):
    """What every shape has in common: nothing is converted, and no key is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class PinnedWheel(Shape):
    """A wheel on the package index, known by its sha256."""

    project: ProjectName
    """The project's name on the index."""
    filename: Annotated[str, Field(pattern=_WHEEL)]
    """The file's whole name."""
    sha256: Sha256
    """What the file must hash to."""


class DebianShape(Shape):
    """A package in the pool of Debian's mirrors, known by its sha256."""

    pool: Annotated[str, Field(pattern=_POOL)]
    """Its path on a mirror."""
    sha256: Sha256
    """What the file must hash to."""
    members: Annotated[dict[File, File], Field(min_length=1)]
    """The files taken out of it, and where each goes in the toolkit."""


class RedistShape(Shape):
    """NVIDIA's redistributable archives of one release."""

    manifest: Annotated[str, Field(pattern=_MANIFEST)]
    """The address of the JSON file that names every archive; theirs are relative to it."""
    sha256: Sha256
    """What the manifest must hash to."""
    components: Annotated[
        list[Annotated[str, Field(pattern=_COMPONENT)]], Field(min_length=1, json_schema_extra=DISTINCT)
    ]
    """The components a toolkit is put together from."""


class ToolkitShape(Shape):
    """A CUDA toolkit."""

    release: Release
    """nvcc's own number, as `nvcc --version` ends."""
    driver: Annotated[str, Field(pattern=_DRIVER)]
    """The oldest NVIDIA driver for Linux that runs its code."""
    gcc_max: Annotated[int, Field(ge=1)]
    """The newest major version of gcc that nvcc accepts."""
    compress: list[Annotated[str, Field(min_length=1)]] = []
    """The words by which nvcc compresses machine code so that `driver` can read it."""
    origins: Annotated[
        list[Literal["system", "registry", "redist", "image"]], Field(min_length=1, json_schema_extra=DISTINCT)
    ]
    """Where it may come from: this machine, the package index and Debian, NVIDIA's archives, a container image."""
    wheels: list[PinnedWheel] = []
    """The wheels of the origin `registry`: compiler, runtime and headers of one minor version."""
    debian: list[DebianShape] = []
    """What the wheels lack, from Debian packages: also of the origin `registry`."""
    redist: RedistShape | None = None
    """The archives of the origin `redist`."""
    oldest: Annotated[str, Field(pattern=_PLAIN_ARCHITECTURE)] | None = None
    """The oldest architecture that it compiles for; left out, none of a recipe is too old."""
    image: Annotated[str, Field(pattern=_IMAGE)] | None = None
    """The container image of the origin `image`."""
    ptxas: dict[Version, PinnedWheel] = {}
    """Newer assemblers by their release, and the wheel with each: "12.9" makes the toolkit 12.4+ptxas12.9."""


class TorchShape(Shape):
    """A release line of torch."""

    release: Release
    """The full release at which the facts were read."""
    index_cuda: Version
    """The CUDA of the build on the Python package index."""
    cuda: Versions
    """Every CUDA the line was published for."""
    pythons: Versions
    """The Pythons it has wheels for."""
    wheel: PinnedWheel | None = None
    """The build whose headers and libraries a front binds against."""
    cxx11_abi: bool = True
    """Whether that build's C++ symbols follow the C++11 ABI of libstdc++."""
    cxx_standard: Annotated[int, Field(ge=17)] = 17
    """The oldest C++ standard that build's headers compile as."""


class JaxShape(Shape):
    """The jaxlib whose headers jax fronts are compiled with."""

    release: Release
    """Its release."""
    wheel: PinnedWheel
    """A build of it, for any Python: the headers alone are taken."""


class PlatformShape(Shape):
    """A platform wheels are meant for."""

    declared_only: Sentence | None = None
    """Why nothing is built for it; left out where it is built."""


class CiShape(Shape):
    """A cell that the tests build and import."""

    cuda: ToolkitName
    """The toolkit."""
    torch: Version
    """The torch release line."""
    engine: Name
    """Where it is built."""


class ExclusionShape(Shape):
    """A point of the matrix that must not be built; an omitted coordinate matches all."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 2})  # the reader's part is `checks`

    cuda: ToolkitName | None = None
    """The toolkit."""
    torch: Version | None = None
    """The torch release line."""
    python: Version | None = None
    """The Python."""
    reason: Sentence
    """Why, in one sentence."""


class MatrixFile(Shape):
    """matrix.yaml: toolkits, torch releases and Pythons."""

    toolkits: Annotated[dict[Version, ToolkitShape], Field(min_length=1)]
    """CUDA toolkits by version."""
    torch: Annotated[dict[Version, TorchShape], Field(min_length=1)]
    """Torch release lines by version."""
    pythons: Versions
    """Every Python a wheel is offered to."""
    default_toolkit: ToolkitName | None = None
    """The toolkit that compiles when the word cuda= is left out; without it the newest at hand."""
    stable_floor: Version
    """The oldest torch whose stable ABI serves; a front bound against it serves every later one."""
    jax: JaxShape | None = None
    """The headers of XLA's FFI, for jax fronts."""
    platforms: Annotated[dict[Platform, PlatformShape], Field(min_length=1)]
    """Platforms by name."""
    exclusions: list[ExclusionShape]
    """Points that must not be built, with reasons."""
    ci: list[CiShape] = []
    """Cells that the tests build and import beside the real torch."""


class DebianBaseShape(Shape):
    """A base made of Debian packages."""

    kind: Literal["debian"]
    """debian"""
    suite: Name
    """The release's code name."""
    moves: bool = False
    """Whether the release still gets new packages; then what was found first is not held to."""
    packages: Annotated[list[Annotated[str, Field(pattern=_PACKAGE)]], Field(json_schema_extra=DISTINCT)]
    """What is installed beside the minimal system."""
    floor: Annotated[str, Field(pattern=_TAG)]
    """The newest platform tag that a wheel linked on it may have."""


class RegistryBaseShape(Shape):
    """A base pulled from a container registry."""

    kind: Literal["registry"]
    """registry"""
    image: Annotated[str, Field(pattern=_IMAGE)]
    """The image with its registry, without tag."""
    tag: Annotated[str, Field(pattern=_DATED)]
    """A dated tag; its digest is enforced once it is in bases.lock.json."""
    floor: Annotated[str, Field(pattern=_TAG)]
    """The newest platform tag that a wheel linked on it may have."""
    search: Annotated[str, Field(pattern=_SEARCH)] = SYSTEM_PATH
    """The PATH on which its compiler and tools are."""


class BasesFile(Shape):
    """image/bases.yaml: what builder images stand on, and the Python tools in every one."""

    default: Name
    """The base used when none is asked for."""
    bases: Annotated[
        dict[Name, Annotated[DebianBaseShape | RegistryBaseShape, Field(discriminator="kind")]], Field(min_length=1)
    ]
    """Bases by name."""
    tools: Annotated[list[PinnedWheel], Field(min_length=1)]
    """The wheels of the tools, complete for Python 3.9."""
