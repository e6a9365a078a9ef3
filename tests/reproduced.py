"""The hashes that every machine must come to: tests/data/reproduced.json, of the container cell that CI builds.

Each machine that runs the tests builds that cell from source and compares, so each is one more witness. A change that
is meant to move bytes renews the file in the same commit, and says there what moved:

    python -m tests.reproduced wheelhouse/NAME.whl.json   # the record of the cell, built in docker or podman
"""

import json
import sys
from pathlib import Path
from typing import Any

from hopperforge.model.record import Record

STORED = Path(__file__).parent / "data" / "reproduced.json"
COMMAND = "nox -s build -- {words} && python -m tests.reproduced wheelhouse/{file}.json"


def expected_of(record: Record) -> dict[str, Any]:
    """Take the hashes out of a record: what went in, so that a difference can be told from its cause, and what came."""
    assert record.pack is not None
    assert record.toolkit is not None
    assert record.image is not None
    assert record.front.framework is not None
    return {
        "cell": f"cuda={record.toolkit.version} torch={record.front.framework.release} profile={record.profile}",
        "inputs": {
            "source": record.source.commit,
            "patched kernels": record.source.kernel_tree,
            "patched binding": record.source.front_tree,
            "toolkit": dict(record.toolkit.fingerprint),
            "base": record.image.base_id,
            "image": record.image.id,
            "tools": dict(record.front.tools),
            "licences": dict(record.licences),
        },
        "objects": {unit.path: {"key": unit.key, "sha256": unit.sha256} for unit in record.pack.units},
        "pack": record.pack.sha256,
        "sbom": record.sbom,
        "wheel": {"file": record.wheel.file, "sha256": record.wheel.sha256},
    }


def moved(stored: object, found: object, place: str = "") -> list[str]:
    """List every value that is another now, by its place; inputs come before what they may have moved."""
    if isinstance(stored, dict) and isinstance(found, dict):
        names = [*stored, *(name for name in found if name not in stored)]
        return [line for name in names for line in moved(stored.get(name), found.get(name), f"{place} {name}".lstrip())]
    return [] if stored == found else [f"{place}: stored is {stored}, and here it is {found}"]


def complaint(record: Record, words: str) -> str:
    """Say what moved and how to renew the file; empty if nothing did."""
    stored, found = json.loads(STORED.read_text()), expected_of(record)
    lines = moved(stored, found)
    if not lines:
        return ""
    how = f"if that is meant: {COMMAND.format(words=words, file=record.wheel.file)}"
    return "\n".join(["the bytes are not those of tests/data/reproduced.json:", *lines, how])


def main() -> None:
    """Renew the file from the record that is the last word."""
    path = Path(sys.argv[1])
    text = json.dumps(expected_of(Record.from_json(path.read_bytes(), str(path))), indent=1)
    STORED.write_text(text + "\n")


if __name__ == "__main__":
    main()
