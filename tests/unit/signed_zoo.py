"""An index with one signed package, and every way to pass off something else in it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.unit import proof_zoo
from tests.unit.index_zoo import catalog
from tests.unit.node_zoo import newer

from hopperforge.index.proof import REQUIRED_GATES
from hopperforge.model.wheel import GateResult
from hopperforge.run.files import sha256_file
from hopperforge.stages.attest import make_keys, sign_package

NOW = datetime(2026, 11, 27, tzinfo=UTC)
GATES = tuple(GateResult(name=name, passed=True, detail="") for name in sorted(REQUIRED_GATES))


@dataclasses.dataclass(frozen=True)
class SignedIndex:
    """A folder that the doctor reads as an index, and the keys of its package."""

    root: Path
    private: Path
    public: Path

    @property
    def wheel(self) -> Path:
        """The one wheel."""
        (path,) = (self.root / "pool" / "fa3-fwd").glob("*.whl")
        return path

    @property
    def place(self) -> Path:
        """Its record's file."""
        return Path(f"{self.wheel}.json")

    @property
    def signature(self) -> Path:
        """Its signature's file."""
        return Path(f"{self.wheel}.dsse.json")

    def list_it(self) -> None:
        """Write the catalog, which says what lies here now."""
        entry = newer(file=self.wheel.name, sha256=sha256_file(self.wheel), platform_tags=("manylinux_2_17_x86_64",))
        (self.root / "packages.json").write_bytes(catalog(entry).to_json())


def signed_index(folder: Path, *, now: datetime = NOW) -> SignedIndex:
    """Make one in `folder`, signed with a key that holds for 30 days from `now`."""
    pool = folder / "index" / "pool" / "fa3-fwd"
    wheel, record = proof_zoo.package(pool)
    Path(f"{wheel}.json").write_bytes(dataclasses.replace(record, gates=GATES).to_json())
    private, public = make_keys(folder / "keys", "release", now=now, days=30)
    sign_package(wheel, private)
    index = SignedIndex(root=folder / "index", private=private, public=public)
    index.list_it()
    return index


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _wheel_and_catalog(index: SignedIndex) -> None:
    _append(index.wheel)
    index.list_it()


def _record(index: SignedIndex) -> None:
    plain = json.loads(index.place.read_text())
    index.place.write_text(json.dumps({**plain, "engine": "podman"}, indent=2))


def _swapped(index: SignedIndex) -> None:
    """Put the good signature of another record beside it."""
    before = index.place.read_bytes()
    _record(index)
    sign_package(index.wheel, index.private)
    index.place.write_bytes(before)


def _another_key(index: SignedIndex) -> None:
    private, _ = make_keys(index.root.parent / "keys", "stranger", now=NOW, days=30)
    sign_package(index.wheel, private)


def _another_payload(index: SignedIndex) -> None:
    plain: dict[str, Any] = json.loads(index.signature.read_text())
    index.signature.write_text(json.dumps({**plain, "payload": plain["payload"][:-8] + "AAAAAAAA"}))


SPOILED: Mapping[str, tuple[Callable[[SignedIndex], object], str]] = {
    "wheel": (lambda index: _append(index.wheel), "and the catalog says"),
    "wheel and catalog": (_wheel_and_catalog, "signed is fa3_fwd-3.0.0+cu130-cp39-abi3-manylinux_2_17_x86_64.whl with"),
    "record": (_record, ".whl.json with the sha256"),
    "swapped signature": (_swapped, ".whl.json with the sha256"),
    "unknown key": (_another_key, "it is signed with a key that is not trusted here"),
    "unsigned": (lambda index: index.signature.unlink(), "it is not signed, and a signature was asked for"),
    "other payload": (_another_payload, "the signature of the key release does not fit what it stands beside"),
    "no envelope": (lambda index: index.signature.write_text("[]"), "its signature file is no DSSE envelope"),
}
"""What is done to an index, and what a verifier says of it."""
