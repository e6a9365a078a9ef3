"""The whole answer: the wheel, the reasons, the commands, what is wrong. Pure."""

from __future__ import annotations

import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from hopperforge.node.choosing import choose, nearest, page_of, reasons_for, user_cuda
from hopperforge.node.mending import findings, installed_entry
from hopperforge.node.values import FITS, INSTALLED, NOTHING, WRONG, Entry, Finding, Node, Report, Wanted


def examine(node: Node, entries: Sequence[Entry], wanted: Wanted, index: str) -> Report:
    """Decide everything: the wheel, the reasons, the commands, and what is wrong."""
    chosen, rejected = choose(entries, node, wanted)
    found = findings(node, entries, chosen, wanted)
    return Report(
        status=_status(chosen, found, installed_entry(node, entries, wanted)),
        index=index,
        chosen=None if chosen is None else chosen.file,
        why=() if chosen is None else reasons_for(chosen, node),
        commands={} if chosen is None else commands(chosen, page_of(chosen, entries, user_cuda(node)), index),
        rejected=rejected,
        nearest=nearest(entries, rejected) if chosen is None else None,
        findings=found,
        node=node,
    )


def _status(chosen: Entry | None, found: Sequence[Finding], installed: Entry | None) -> str:
    """Sum up.

    | a wheel fits | problems | installed | status       |
    |--------------|----------|-----------|--------------|
    | no           |          |           | nothing fits |
    | yes          | some     |           | wrong        |
    | yes          | none     | no        | fits         |
    | yes          | none     | yes       | installed    |
    """
    if chosen is None:
        return NOTHING
    if any(finding.level == "problem" for finding in found):
        return WRONG
    return FITS if installed is None else INSTALLED


def commands(entry: Entry, page: str, index: str) -> dict[str, str]:
    """Give the lines that install exactly this wheel; a test holds them to those of hopperforge.index.commands."""
    root = as_url(index)
    direct = f"{entry.project} @ {root}/{urllib.parse.quote(entry.path)}#sha256={entry.sha256}"
    pinned = shlex.quote(f"{entry.project}=={entry.version} --hash=sha256:{entry.sha256}")
    url = shlex.quote(f"{root}/{page}/{entry.project}/index.html")
    held = f"--no-deps --no-index --find-links {url} --require-hashes -r /dev/stdin"
    return {
        "pip": f"pip install --no-deps {shlex.quote(direct)}",
        "uv": f"uv pip install --no-deps {shlex.quote(direct)}",
        "pip_by_page": f"echo {pinned} | pip install {held}",
        "uv_by_page": f"echo {pinned} | uv pip install {held}",
    }


def as_url(index: str) -> str:
    """Write the root of an index as a URL without a slash at its end and without credentials."""
    if "://" not in index:
        return Path(index).absolute().as_uri()
    parts = urllib.parse.urlsplit(index)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
