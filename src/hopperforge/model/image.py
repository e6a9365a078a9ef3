"""Builder images: the bases they stand on, the tools put into them, and how each is known."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hopperforge.model.keys import content_key
from hopperforge.model.toolkit import PinnedFile

SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
REGISTRY_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianBase:
    """A base made of Debian packages.

    `floor` is the newest platform tag a wheel linked on it may have; `moves` whether the release still gets new
    packages, so that it cannot be held to what it was.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    floor: str
    moves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryBase:
    """A base pulled from a container registry by a dated tag; `search` is the PATH on which its compiler is."""

    name: str
    image: str
    tag: str
    floor: str
    search: str = SYSTEM_PATH

    @property
    def reference(self) -> str:
        """What to pull while no digest is known."""
        return f"{self.image}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What image/bases.yaml declares: bases by name, the one taken when none is asked for, the Python tools."""

    bases: Mapping[str, DebianBase | RegistryBase]
    default: str
    tools: tuple[PinnedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base at hand: `id` changes with its content, `tag` is the name the engine has it under."""

    name: str
    id: str
    tag: str
    floor: str
    search: str = SYSTEM_PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A builder image at hand: `id` is ours, equal for equal inputs; `reference` is the engine's own id of it.

    `tools` are the versions of the Python tools inside, by project.
    """

    id: str
    base: Base
    reference: str
    tools: Mapping[str, str]

    @property
    def floor(self) -> str:
        """The newest platform tag a wheel linked in it may have."""
        return self.base.floor


def debian_base_id(packages: Sequence[str], content: str) -> str:
    """Name a Debian base by its packages, each written name=version, and the sha256 of its root file system."""
    return content_key("debian-base", {"packages": sorted(packages), "content": content})


def image_id(*, base: Base, files: Mapping[str, str], toolkit: str, tools: Sequence[PinnedFile]) -> str:
    """Name an image by everything that goes into it: the Dockerfile and scripts by sha256, base, toolkit, tools."""
    wheels = {tool.filename: tool.sha256 for tool in tools}
    return content_key(
        "image",
        {"base": base.id, "search": base.search, "files": dict(files), "toolkit": toolkit, "tools": wheels},
    )


def digest_of(inspected: Mapping[str, Any], image: str) -> str:
    """Take the digest that `docker image inspect` gives for `image`; ValueError if it names none."""
    digests = inspected.get("RepoDigests") or []
    for entry in digests:
        name, _, digest = str(entry).rpartition("@")
        if name == image and REGISTRY_DIGEST.fullmatch(digest):
            return digest
    message = f"it has no digest of {image}; it has {', '.join(map(str, digests)) or 'none at all'}"
    raise ValueError(message)


def layers_of(inspected: Mapping[str, Any]) -> tuple[str, ...]:
    """Take the hashes of an image's layers, each of an uncompressed tar: an imported tar is known by its own again."""
    return tuple((inspected.get("RootFS") or {}).get("Layers") or ())


def tool_versions(tools: Sequence[PinnedFile]) -> Mapping[str, str]:
    """Read the tools' versions out of the names of their wheels."""
    return {tool.project: tool.filename.split("-")[1] for tool in tools}
