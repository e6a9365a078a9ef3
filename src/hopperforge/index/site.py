"""The page for people at the root of an index: made of the catalog alone, and needing nothing but itself.

Everything shown is decided here and in `site_rows`; the template places it, and the script only picks among what is on
the page. Style and script are in the page, named by their hashes in its Content-Security-Policy, which allows no other
and no connection to anywhere.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from hopperforge.index.catalog import Catalog
from hopperforge.index.features import Feature, features_of
from hopperforge.index.served import Choices
from hopperforge.index.site_chooser import make_chooser
from hopperforge.index.site_rows import PLACEHOLDER, Row, best_first, make_rows, megabytes, scale_of

DOCTOR: Final = f"curl -fsSO {PLACEHOLDER}/doctor.py && python3 doctor.py --index {PLACEHOLDER}"

_FOLDER: Final = "data/site"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """A profile as its packages have it; `sizes` are of the smallest and the largest library."""

    name: str
    recipe: str
    default: bool
    count: int
    sizes: str
    switches: tuple[str, ...]
    gpus: tuple[str, ...]


def site_pages(catalog: Catalog) -> Mapping[str, bytes]:
    """Write the page for people, by path from the root of the index; equal catalogs give equal bytes."""
    choices = Choices.of(catalog)
    rows = make_rows(catalog, choices)
    chooser = make_chooser(rows, choices)
    profiles = _profiles([row for row in rows if row.entry.commit])  # features are those of upstream's kernels
    style, script = _part("style.css"), _part("script.js")
    text = _template().render(
        rows=_in_page_order(rows),
        chooser=chooser,
        several_projects=len({row.entry.project for row in rows}) > 1,
        profiles=profiles,
        features=_features(profiles),
        scale=scale_of(catalog),
        placeholder=PLACEHOLDER,
        doctor=DOCTOR,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=_policy(style, script),
    )
    return {"index.html": text.encode()}


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _in_page_order(rows: Sequence[Row]) -> list[Row]:
    """Order rows as people look for them: by project, the default profile first, the best first, the withdrawn last."""
    places = {row.entry.file: place for place, row in enumerate(best_first(rows))}

    def order(row: Row) -> tuple[str, bool, str, int, str]:
        entry = row.entry
        return entry.project, not entry.default, entry.profile, places.get(entry.file, len(places)), entry.file

    return sorted(rows, key=order)


def _profiles(rows: Sequence[Row]) -> tuple[ProfileView, ...]:
    """Describe each profile once, the default first; one whose switches have changed is described twice."""
    groups: dict[tuple[bool, str, str, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        entry = row.entry
        switches = tuple(sorted(entry.switches))
        groups.setdefault((not entry.default, entry.profile, entry.recipe, switches), []).append(row)
    return tuple(_profile(key, groups[key]) for key in sorted(groups))


def _profile(key: tuple[bool, str, str, tuple[str, ...]], rows: Sequence[Row]) -> ProfileView:
    other, name, recipe, switches = key
    smallest, largest = (megabytes(size) for size in _ends([row.entry.library_size for row in rows]))
    gpus = dict.fromkeys(gpu for row in rows for gpu in row.served.gpus)
    return ProfileView(
        name=name,
        recipe=recipe,
        default=not other,
        count=len(rows),
        sizes=smallest if smallest == largest else f"{smallest} to {largest}",
        switches=switches,
        gpus=tuple(gpus),
    )


def _ends(sizes: Sequence[int]) -> tuple[int, int]:
    return min(sizes), max(sizes)


def _features(profiles: Sequence[ProfileView]) -> tuple[Feature, ...]:
    return features_of(switch for profile in profiles for switch in profile.switches)


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("hopperforge", _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("index.html.jinja")


@functools.cache
def _part(name: str) -> str:
    return resources.files("hopperforge").joinpath(_FOLDER, name).read_text(encoding="utf-8")
