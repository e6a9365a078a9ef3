"""The shape of flash-attention/upstream.yaml, as pydantic models; see `hopperforge.config.files`."""

from typing import Annotated, Literal

from pydantic import Field

from hopperforge.config.files import (
    File,
    Folder,
    GitHash,
    PinName,
    ProjectName,
    Sentence,
    Sha256,
    Shape,
    worded,
)
from hopperforge.config.files_recipe import Switch

_SDIST = worded(r"^[A-Za-z0-9_.+-]+\.tar\.gz$", "is not the file name of a .tar.gz source distribution")
_URL = worded(r"^https://\S+$", "is not an https address")


class GitShape(Shape):
    """A git repository that holds the commit."""

    kind: Literal["git"]
    """git"""
    url: Annotated[str, Field(pattern=_URL)]
    """Where to clone from."""


class SdistShape(Shape):
    """A source distribution on the package index that carries the source."""

    kind: Literal["sdist"]
    """sdist"""
    project: ProjectName
    """The project's name on the index."""
    filename: Annotated[str, Field(pattern=_SDIST)]
    """The file's whole name."""
    sha256: Sha256
    """What the file must hash to."""
    folder: Folder
    """Where in the archive, below its top folder, the source lies."""


class PinnedSdist(Shape):
    """A source distribution on the package index, known by its sha256."""

    project: ProjectName
    """The project's name on the index."""
    filename: Annotated[str, Field(pattern=_SDIST)]
    """The file's whole name."""
    sha256: Sha256
    """What the file must hash to."""


class LicenceShape(Shape):
    """A licence that goes into every package."""

    path: File
    """Where it is in upstream's repository, and in an archive below its top folder."""
    sha256: Sha256
    """What it must hash to."""
    archive: PinnedSdist | None = None
    """A source distribution that has it, where not every origin of the source does."""


class PinShape(Shape):
    """A commit of upstream."""

    commit: GitHash
    """The full commit hash."""
    epoch: Annotated[int, Field(ge=1)]
    """SOURCE_DATE_EPOCH of everything built from it, in seconds."""
    trees: Annotated[dict[Folder, GitHash], Field(min_length=1)]
    """Folder to git tree hash, all files taken as mode 100644."""
    origins: Annotated[list[Annotated[GitShape | SdistShape, Field(discriminator="kind")]], Field(min_length=1)]
    """Where the source can be fetched, tried in this order."""
    licences: list[LicenceShape] = Field(default_factory=list)
    """The licences that go into every package."""


class UpstreamFile(Shape):
    """flash-attention/upstream.yaml: pins and switches of Dao-AILab/flash-attention."""

    pins: Annotated[dict[PinName, PinShape], Field(min_length=1)]
    """Pins by name, which is also the name of the folder of their patch series."""
    switches: Annotated[dict[Switch, Sentence], Field(min_length=1)]
    """Upstream's feature switches, without prefix, and what each does."""
