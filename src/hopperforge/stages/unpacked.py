"""Folders unpacked once from verified archives and checked on every use: registry toolkits and torch kits.

Beside such a folder lies its receipt: the fingerprint it had when it was unpacked. A folder without a receipt, or
with another fingerprint, is not trusted: it is unpacked again.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.keys import canonical_json
from hopperforge.run.files import (
    Lock,
    remove_folder,
    replace_folder,
    storage_guard,
    sweep,
    temporary_folder,
    write_atomic,
)
from hopperforge.run.workspace import Workspace


def unpack_once(
    folder: Path,
    *,
    what: str,
    fill: Callable[[Path], None],
    identify: Callable[[Path], Mapping[str, str]],
    workspace: Workspace,
) -> Mapping[str, str]:
    """Make sure that `folder` holds what was unpacked there, and give its fingerprint.

    `fill` puts the content into an empty folder, which is then published under the final name; `identify` gives the
    fingerprint of a folder, or raises SourceError, ToolError or OSError if something is missing. `what` names the
    content in messages. Runs side by side wait for one another.
    """
    wait = partial(workspace.reporter.note, f"waiting for another run that unpacks {what}")
    with Lock(folder.with_name(f"{folder.name}.lock"), on_wait=wait):
        known = _verified(folder, identify, workspace)
        if known is None:
            with storage_guard(folder.parent):
                sweep(folder.parent, folder.name)
            with temporary_folder(folder.parent, folder.name) as work:
                fill(work)
                replace_folder(work, folder)
            known = identify(folder)
            write_atomic(receipt_path(folder), canonical_json(dict(known)))
    return known


def receipt_path(folder: Path) -> Path:
    """Where the fingerprint of an unpacked folder is kept; it exists only once the folder is complete."""
    return folder.with_name(f"{folder.name}.json")


def _verified(
    folder: Path, identify: Callable[[Path], Mapping[str, str]], workspace: Workspace
) -> Mapping[str, str] | None:
    if not folder.is_dir():
        return None
    try:
        receipt = json.loads(receipt_path(folder).read_bytes())
        known = identify(folder)
        changed = [part for part, digest in known.items() if receipt[part] != digest]
    except (OSError, ValueError, LookupError, TypeError):
        reason = "something is missing"
    except (SourceError, ToolError) as error:
        reason = error.sentence
    else:
        if not changed:
            return known
        reason = f"changed: {', '.join(changed)}"
    workspace.reporter.warn(f"{folder} is not what was unpacked there ({reason}): unpacking it again")
    with storage_guard(folder):
        receipt_path(folder).unlink(missing_ok=True)
        remove_folder(folder)
    return None
