"""The shape of recipes/<name>/recipe.yaml; see `files`."""

from typing import Annotated, Literal

from pydantic import Field

from hopperforge.config.files import DISTINCT, File, Folder, Module, Name, PinName, ProjectName, Sentence, Shape, worded

_LIBRARY = worded(r"^lib[A-Za-z0-9_+.-]+\.so(\.[0-9]+)*$", "is not a shared library, such as libc10.so")
_UNITS = worded(r"^[a-z0-9_*?!\[\]]+$", "is not a pattern of unit names, such as flash_fwd_*_sm90")
_NAME_WORD = worded(r"^[a-z0-9]+$", "is not a word of unit names: small letters and digits, such as packgqa")
_ARCHITECTURE = worded(r"^sm_[0-9]+[af]?$", "is not a GPU architecture, such as sm_90a")
_SIZE = worded(r"^[0-9]+(\.[0-9]+)? MB$", 'is not a size, such as "27.6 MB"')
_PTX = worded(r"^compute_[0-9]+[af]?$", "is not an architecture of PTX, such as compute_90")
_PATTERN = worded(
    r"^[A-Za-z0-9_*?][A-Za-z0-9_.+*?-]*(/[A-Za-z0-9_*?][A-Za-z0-9_.+*?-]*)*$",
    "is not a pattern of files below the recipe, such as src/*.cpp",
)
_WRAPPED = worded(r"^[A-Za-z_][A-Za-z0-9_]*$", "is not a symbol, such as fprintf")
_SYMBOL = worded(r"^[A-Za-z_*?][A-Za-z0-9_*?]*$", "is not a pattern of symbols, such as PyInit_*")
_REQUIREMENT = worded(
    r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,]+\])?([<>=!~]=?[0-9][0-9.,<>=!~]*)?$",
    "is not a requirement, such as jax>=0.6",
)
_SPECIFIER = worded(r"^>=3\.[0-9]+$", 'is not a bound of Pythons, such as ">=3.9"')
_SWITCH = worded(r"^(DISABLE|ENABLE)_[A-Z0-9]+$", "is not a switch, such as DISABLE_PAGEDKV")
_PACKAGE_VERSION = worded(r"^[0-9]+(\.[0-9]+)*$", 'is not a plain version, such as "3.0.0"')

Switch = Annotated[str, Field(pattern=_SWITCH)]
Size = Annotated[str, Field(pattern=_SIZE)]
Switches = Annotated[list[Switch], Field(json_schema_extra=DISTINCT)]
Architectures = Annotated[
    list[Annotated[str, Field(pattern=_ARCHITECTURE)]], Field(min_length=1, json_schema_extra=DISTINCT)
]
Symbols = Annotated[list[Annotated[str, Field(pattern=_SYMBOL)]], Field(json_schema_extra=DISTINCT)]
Pattern = Annotated[str, Field(pattern=_PATTERN)]
Patterns = Annotated[list[Pattern], Field(min_length=1, json_schema_extra=DISTINCT)]
Place = File  # the same form, below the package
Libraries = Annotated[list[Annotated[str, Field(pattern=_LIBRARY)]], Field(json_schema_extra=DISTINCT)]


class BudgetShape(Shape):
    """Upper bounds of size; MB is 10^6 bytes."""

    wheel: Size
    """The wheel file."""
    library: Size | None = None
    """The shared library in it, unpacked; left out where there is none."""


class ProfileShape(Shape):
    """What is compiled in."""

    summary: Sentence
    """For whom it is, in one sentence."""
    switches: Switches | None = None
    """Upstream's switches that are on, without prefix; left out where `kernels: of:` names whose they are."""
    architectures: Architectures | None = None
    """What the library must hold code for, exactly; left out together with `switches`."""
    ptx: Annotated[list[Annotated[str, Field(pattern=_PTX)]], Field(json_schema_extra=DISTINCT)] = Field(default=[])
    """What it must hold PTX for, exactly: code that the driver of a newer GPU compiles."""
    budget: BudgetShape
    """The sizes a package must keep."""


class PackageShape(Shape):
    """The names users meet."""

    distribution: ProjectName
    """On the index."""
    package: Module
    """In `import`."""
    module: Module
    """The interface module."""
    version: Annotated[str, Field(pattern=_PACKAGE_VERSION)]
    """Without local label."""
    summary: Sentence
    """One line for the wheel's metadata."""


class MergeShape(Shape):
    """Which sources are compiled together."""

    units: Annotated[str, Field(pattern=_UNITS)]
    """The names of the units it is for, as a shell matches file names; the first rule that matches a unit counts."""
    vary: Annotated[list[Annotated[str, Field(pattern=_NAME_WORD)]], Field(min_length=1, json_schema_extra=DISTINCT)]
    """The words of a name in which sources of one unit may differ; the first parts a set that is too large."""
    largest: Annotated[int, Field(ge=1)]
    """The most sources of one unit; 1 keeps each by itself, whatever a later rule says."""


class PromiseShape(Shape):
    """What an import of the package must show, GPU or none."""

    operators: Annotated[list[Module], Field(min_length=1, json_schema_extra=DISTINCT)]
    """The operators it registers with torch, in the namespace named like the package."""
    function: Module
    """A function of the interface module that takes q, k and v."""
    guard: Sentence
    """What that function says, among other things, where there is no GPU."""


class FrontShape(Shape):
    """How the kernels are bound: the recipe's own sources, and what they become in the package."""

    kind: Literal["torch", "cpp", "jax"]
    """What they bind to: torch by its stable ABI, nothing, or XLA by its FFI's headers."""
    sources: Patterns
    """The C++ sources of the library."""
    shares: Name | None = None
    """A recipe whose sources are compiled into the library too, and whose headers these may include."""
    library: Place
    """The shared library's place in the package."""
    exports: File
    """The linker's version script, below the recipe."""
    symbols: Symbols
    """Patterns of the symbols that the library shows, and no other."""
    wrap: Annotated[list[Annotated[str, Field(pattern=_WRAPPED)]], Field(json_schema_extra=DISTINCT)] = Field(
        default=[]
    )
    """Symbols that kernels ask others for and the sources stand in for, as __wrap_NAME (ld's --wrap)."""
    archive: Place | None = None
    """The static library's place; left out, there is none."""
    programs: dict[Place, Patterns] = Field(default={})
    """Executables by their place, and the sources of each; they are linked with the library."""
    files: dict[Pattern, Folder] = Field(default={})
    """Further files of the recipe, and the folder of the package that they are shipped in."""
    requires: list[Annotated[str, Field(pattern=_REQUIREMENT)]] = Field(default=[])
    """What the package requires of an index, torch aside."""
    requires_python: Annotated[str, Field(pattern=_SPECIFIER)] = ">=3.9"
    """The oldest Python the package is for."""
    tarball: bool = False
    """Whether it is handed on as a .tar.zst as well."""


class PythonFrontShape(Shape):
    """A package of Python alone: the folder `python` of the recipe, and nothing that is compiled."""

    kind: Literal["python"]
    """That there are no kernels and no library, for no toolkit and no platform."""
    requires: list[Annotated[str, Field(pattern=_REQUIREMENT)]] = Field(default=[])
    """What the package requires of an index; its modules may import these, themselves and Python's own alone."""
    requires_python: Annotated[str, Field(pattern=_SPECIFIER)] = ">=3.9"
    """The oldest Python the package is for; its sources must be in the words of that one."""
    epoch: Annotated[int, Field(ge=1)]
    """The time that is written into the package, in seconds since 1970."""


class KernelsShape(Shape):
    """Where the kernels come from, if not from the pin by the recipe's own rules."""

    of: Name | None = None
    """A recipe whose merge rules are taken, and whose profiles are where the name is the same: both bind one pack."""
    own: Pattern | None = None
    """The `.cu` files that the recipe brings itself."""
    flags: list[Sentence] = Field(default=[])
    """Words of nvcc for them, beside ours."""
    epoch: Annotated[int, Field(ge=1)] | None = None
    """The time that is written into all that is built from them, in seconds since 1970."""


class RecipeFile(Shape):
    """recipes/<name>/recipe.yaml: what to build."""

    name: Name
    """The recipe's name, which is its folder's."""
    pin: PinName | None = None
    """The upstream pin, from flash-attention/upstream.yaml; left out where it brings its kernels or has none."""
    package: PackageShape
    """The names users meet."""
    front: Annotated[FrontShape | PythonFrontShape, Field(discriminator="kind")] | None = None
    """The recipe's own front; left out, it is upstream's API file, bound to torch by upstream's setup.py."""
    kernels: KernelsShape | None = None
    """Where the kernels come from; left out, from the pin."""
    promise: PromiseShape | None = None
    """What an import must show; left out where nothing is imported."""
    cudart: Literal["static", "shared"] | None = None
    """How the CUDA runtime is linked; left out where nothing is."""
    needed: Libraries | None = None
    """The libraries in DT_NEEDED, beside the system's, exactly; left out where there is no library."""
    needed_per_torch: Libraries | None = None
    """The same for builds tied to one torch; without it there are none."""
    default_profile: Name
    """The profile built when none is asked for."""
    profiles: Annotated[dict[Name, ProfileShape], Field(min_length=1)]
    """Profiles by name."""
    merge: dict[Name, MergeShape] = Field(default={})
    """Which sources are compiled together, by a name for the rule, in order; left out, each is compiled by itself."""
