"""Where this machine's pip looks for packages: read from pip itself, so that no index is named in the project."""

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.run.process import run

DEFAULT_TIMEOUT: Final = 15.0  # pip's own

_LINE: Final = re.compile(r"(?P<section>global|install|download|:env:)\.(?P<key>[a-z0-9-]+)=(?P<value>['\"].*)")
_PRECEDENCE: Final = ("global", "install", "download", ":env:")
_NO_PIP: Final = "No module named pip"


class SourceKind(StrEnum):
    """What stands at the place: an index with a page for each project, or one page or folder of files."""

    INDEX = "index"
    FIND_LINKS = "find-links"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """A place pip looks in: `setting` is the name to show (the place may hold credentials), None pip's default."""

    setting: str
    kind: SourceKind
    place: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipSettings:
    """What pip's configuration says of places and connections; `timeout` is in seconds."""

    sources: tuple[PackageSource, ...]
    trusted_hosts: tuple[str, ...]
    cert: str | None
    client_cert: str | None
    proxy: str | None
    timeout: float


def read_pip_settings(environ: Mapping[str, str], cwd: Path) -> PipSettings:
    """Ask `python -m pip config list`; without pip in this Python, the PIP_* variables alone.

    ToolError if pip's configuration cannot be read, or holds something that cannot be used.
    """
    lines: list[str] = []
    done = run([sys.executable, "-m", "pip", "config", "list"], cwd=cwd, env=environ, on_line=lines.append)
    if done.status == 0:
        return settings_of(parse_config_list(lines))
    if any(_NO_PIP in line for line in lines):
        return settings_of(parse_variables(environ))
    message = "pip's configuration cannot be read, so the package index is not known"
    raise ToolError(
        message,
        detail=done.tail,
        hint=f"{sys.executable} -m pip config debug",
    )


def parse_config_list(lines: Iterable[str]) -> dict[str, str]:
    """Read the output of `pip config list`; the environment beats `download`, `install` and `global`, in this order."""
    sections: dict[str, dict[str, str]] = {section: {} for section in _PRECEDENCE}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is not None:
            sections[match["section"]][match["key"]] = str(ast.literal_eval(match["value"]))
    return {key: value for section in _PRECEDENCE for key, value in sections[section].items()}


def parse_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Read the PIP_* variables as pip does: PIP_INDEX_URL is index-url; empty ones do not count."""
    prefix = "PIP_"
    return {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(prefix) and value
    }


def settings_of(options: Mapping[str, str]) -> PipSettings:
    """Make settings of pip's options by name; ToolError for a timeout that is no number."""
    timeout = options.get("timeout", options.get("default-timeout", str(DEFAULT_TIMEOUT)))
    try:
        seconds = float(timeout)
    except ValueError as error:
        message = f"pip's setting timeout is {timeout!r}, which is not a number of seconds"
        raise ToolError(message, hint=f"{sys.executable} -m pip config debug") from error
    return PipSettings(
        sources=(*_indexes(options), *_places("find-links", SourceKind.FIND_LINKS, options)),
        trusted_hosts=tuple(options.get("trusted-host", "").split()),
        cert=options.get("cert"),
        client_cert=options.get("client-cert"),
        proxy=options.get("proxy"),
        timeout=seconds,
    )


def _indexes(options: Mapping[str, str]) -> tuple[PackageSource, ...]:
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return ()
    main = options.get("index-url")
    setting = "index-url" if main else "index-url (pip's default)"
    first = PackageSource(setting=setting, kind=SourceKind.INDEX, place=main or None)
    return (first, *_places("extra-index-url", SourceKind.INDEX, options))


def _places(setting: str, kind: SourceKind, options: Mapping[str, str]) -> tuple[PackageSource, ...]:
    places = options.get(setting, "").split()
    numbers = [""] if len(places) == 1 else [f" {number}" for number in range(1, len(places) + 1)]
    return tuple(
        PackageSource(setting=setting + number, kind=kind, place=place)
        for number, place in zip(numbers, places, strict=True)
    )
