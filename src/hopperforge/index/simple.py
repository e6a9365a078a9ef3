"""Simple pages written by the library `simple-repository`; nothing else here imports it.

It writes what it is given as it is, so what would come out wrong is put right on the way in:
- a raw `+` in an address, which some servers read as a blank: every character beyond the plain ones is percent-encoded;
- a reason for yanking that would end the attribute of the HTML page: it is escaped there, and only there;
- sets in the order of this process: projects and versions are handed over in order, so equal catalogs give equal bytes;
- times of other zones marked as UTC: they are converted;
- it builds all of a web client when imported, so it is imported by who writes pages only.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

if TYPE_CHECKING:
    from simple_repository.model import File

_API_VERSION: Final = "1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLink:
    """A file as a page lists it.

    `version` is that of its name; `path` is from the root of the index, and `record` that of its record; the hashes are
    sha256; `yanked` is the reason, None if it stands; `uploaded` a time in ISO 8601.
    """

    file: str
    version: str
    path: str
    sha256: str
    size: int
    requires_python: str | None
    metadata_sha256: str
    uploaded: str
    yanked: str | None
    record: str
    signature: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page in both of its forms."""

    html: bytes
    json: bytes


def address(path: str, depth: int) -> str:
    """The relative address of `path` seen from a page `depth` folders below the root: ../../pool/a%2Bcu130.whl."""
    return "../" * depth + quote(path)


class PageWriter:
    """Writes the pages of one index; each file is described to the library once for all pages of the same depth."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int], File] = {}

    def projects(self, projects: Iterable[str]) -> Page:
        """The page that lists projects."""
        from simple_repository import model, serializer  # noqa: PLC0415 - see above

        elements = tuple(map(model.ProjectListElement, sorted(set(projects))))
        page = model.ProjectList(
            meta=model.Meta(_API_VERSION), projects=cast("frozenset[model.ProjectListElement]", elements)
        )
        return Page(
            html=serializer.SerializerHtmlV1().serialize_project_list(page).encode(),
            json=serializer.SerializerJsonV1().serialize_project_list(page).encode(),
        )

    def project(self, project: str, links: Sequence[FileLink], versions: Sequence[str], depth: int) -> Page:
        """The page of a project that lists `links`, `depth` folders below the root; `versions` are theirs, in order."""
        from simple_repository import model, serializer  # noqa: PLC0415 - see above

        files = tuple(self._file(link, depth) for link in links)
        page = model.ProjectDetail(
            meta=model.Meta(_API_VERSION),
            name=project,
            files=files,
            versions=cast("frozenset[str]", tuple(versions)),
        )
        return Page(
            html=serializer.SerializerHtmlV1()
            .serialize_project_page(replace(page, files=tuple(map(_escaped, files))))
            .encode(),
            json=serializer.SerializerJsonV1().serialize_project_page(page).encode(),
        )

    def _file(self, link: FileLink, depth: int) -> "File":
        key = (link.path, depth)
        if key not in self._files:
            self._files[key] = _file(link, depth)
        return self._files[key]


def _file(link: FileLink, depth: int) -> "File":
    from simple_repository.model import File, PrivateMetadataMapping  # noqa: PLC0415 - see above

    beside = {"_record": address(link.record, depth)}
    if link.signature is not None:
        beside["_attestation"] = address(link.signature, depth)
    return File(
        filename=link.file,
        url=address(link.path, depth),
        hashes={"sha256": link.sha256},
        requires_python=link.requires_python,
        dist_info_metadata={"sha256": link.metadata_sha256},
        yanked=True if link.yanked == "" else link.yanked,
        size=link.size,
        upload_time=_moment(link.uploaded),
        private_metadata=PrivateMetadataMapping(beside),
    )


def _moment(text: str) -> datetime | None:
    """Read a time, as UTC where it names no zone; what is no time is left out, for a page is no worse without."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _escaped(file: "File") -> "File":
    """The file as an HTML page can hold it: the library escapes what is required of Python, and nothing else."""
    if isinstance(file.yanked, str):
        file = replace(file, yanked=html.escape(file.yanked))
    return file if html.escape(file.filename) == file.filename else replace(file, filename=html.escape(file.filename))
