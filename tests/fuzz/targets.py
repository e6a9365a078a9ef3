"""What is fuzzed: each reader of data from outside, given any bytes. Only our own errors may come out of it.

A target returns for data it can read, and raises one of `REFUSALS` for data it cannot; anything else is a defect.
`seeds` gives each something to begin with. Structured targets take the bytes as a recipe for an archive, for a random
change of a real one rarely gets past its checksums.
"""

import copy
import functools
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.unit import deb_zoo, proof_zoo
from tests.unit import wheel_zoo as zoo
from tests.unit.node_zoo import known
from tests.unit.record_zoo import record

from hopperforge.config.checks import check_bases, check_matrix, check_upstream
from hopperforge.config.files import BasesFile, MatrixFile
from hopperforge.config.files_recipe import RecipeFile
from hopperforge.config.files_upstream import UpstreamFile
from hopperforge.config.shape import check_shape
from hopperforge.config.tree import parse_tree
from hopperforge.errors import HopperforgeError, SourceError
from hopperforge.index.catalog import Catalog, Entry, EntryCell, EntryGate
from hopperforge.model.cell import AbiClass
from hopperforge.model.record import Record, read_reproduction
from hopperforge.model.wheel import GateResult
from hopperforge.node.reading import read_entries
from hopperforge.node.signatures import Signed, UntrustedError, check_signature, read_key
from hopperforge.node.values import UnreadableError
from hopperforge.provenance.envelope import open_envelope, sign
from hopperforge.provenance.keys import PublicKey, make_key_pair, read_signer
from hopperforge.provenance.sbom import make_sbom, sbom_problems
from hopperforge.provenance.statement import make_statement, read_statement, statement_problems
from hopperforge.run.archives import unpack_deb, unpack_tar, unpack_zip
from hopperforge.stages.elf import read_library
from hopperforge.stages.gates import metadata_gate, record_gate
from hopperforge.stages.gates_contents import licences_gate, sbom_gate
from hopperforge.stages.wheel_archive import read_wheel
from hopperforge.store.packs import read_pack

PROJECT: Final = Path(__file__).parents[2]
REFUSALS: Final = (HopperforgeError,)
NOW: Final = datetime(2026, 11, 27, tzinfo=UTC)
PRIVATE, PUBLIC = make_key_pair("fuzz", now=NOW, days=1)
SIGNER: Final = read_signer(PRIVATE, "key")
KEY: Final = PublicKey.parse(PUBLIC.decode(), "key")
RECORD: Final = record()
NODE_KEY: Final = read_key(PUBLIC.decode(), "key")
_ENVELOPE: Final = sign(make_statement(RECORD, b"", key_id=KEY.key_id), SIGNER)
CONTENTS: Final = proof_zoo.contents()

Target = Callable[[bytes], None]


@contextmanager
def _file(data: bytes, name: str = "a.whl") -> Iterator[tuple[Path, Path]]:
    """Give a file with `data` and a folder beside it, and check that nothing came to lie anywhere else, refused or not.

    What was refused may leave a link that points out; the folder is thrown away then.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        path, into = Path(place) / name, Path(place) / "into"
        path.write_bytes(data)
        into.mkdir()
        try:
            yield path, into
        finally:
            assert sorted(found.name for found in Path(place).iterdir()) == sorted([name, "into"]), "it got out"
        for found in into.rglob("*"):
            assert Path(os.path.realpath(found)).is_relative_to(into.resolve()), f"{found} points out"


def _tar(data: bytes) -> None:
    with _file(data) as (path, into):
        unpack_tar(path, into)


def _zip(data: bytes) -> None:
    with _file(data) as (path, into):
        unpack_zip(path, into)


def _deb(data: bytes) -> None:
    with _file(data) as (path, into):
        unpack_deb(path, into, {"usr/bin/x": "bin/x"})


def _pack(data: bytes) -> None:
    with _file(data) as (path, into):
        read_pack(path, into)


_KINDS: Final = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


def _made_tar(data: bytes) -> None:
    """Make a tar of the lines: kind, name, target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for line in data.split(b"\n")[:20]:
            kind, _, rest = line.partition(b" ")
            name, _, target = rest.decode("utf-8", "surrogateescape").partition(" ")
            member = tarfile.TarInfo(name)
            member.type = _KINDS[sum(kind) % len(_KINDS)]
            member.linkname = target
            member.size = 2 if member.isreg() else 0
            try:
                tar.addfile(member, io.BytesIO(b"xy"))
            except (ValueError, UnicodeError):  # a name that no tar can hold
                return
    _tar(out.getvalue())


def _made_zip(data: bytes) -> None:
    """Make a zip of the lines: mode in hex, name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for line in data.decode("utf-8", "replace").split("\n")[:20]:
            mode, _, name = line.partition(" ")
            member = zipfile.ZipInfo(name)
            member.external_attr = sum(map(ord, mode)) % 0x10000 << 16
            if name in archive.namelist():
                return
            archive.writestr(member, b"xy")
    _zip(out.getvalue())


def _wheel(data: bytes) -> None:
    with _file(data, f"fa3_fwd-{zoo.VERSION}-{zoo.TAG}.whl") as (path, _):
        wheel = read_wheel(path)
        _judge(
            metadata_gate(wheel, distribution=zoo.DISTRIBUTION, version=zoo.VERSION, requires=zoo.REQUIRES),
            record_gate(wheel),
            sbom_gate(wheel, contents=CONTENTS),
            licences_gate(wheel, licences=CONTENTS.licences),
        )


def _made_wheel(data: bytes) -> None:
    """Make a wheel whose METADATA, WHEEL and RECORD are the parts of the data."""
    metadata, wheel, listing = (*data.split(b"\0", 2), b"", b"")[:3]
    members = {"METADATA": metadata, "WHEEL": wheel, "RECORD": listing}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{zoo.INFO}/{name}", content)
    _wheel(out.getvalue())


def _judge(*results: GateResult) -> None:
    for result in results:
        assert result.detail or result.passed


def _library(data: bytes) -> None:
    try:
        read_library(data)
    except ValueError as error:
        raise SourceError(str(error)) from error


def _yaml(data: bytes) -> None:
    for file, shape in (
        ("matrix.yaml", MatrixFile),
        ("recipes/a/recipe.yaml", RecipeFile),
        ("flash-attention/upstream.yaml", UpstreamFile),
        ("image/bases.yaml", BasesFile),
    ):
        tree, _ = parse_tree(file, data)
        if tree is None:
            return
        check_shape(file, tree, shape)
        for check in (check_matrix, check_upstream, check_bases):
            check(file, tree)


_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1.5, 2**70, float("nan"), "", "x", "\ud800", "0" * 64, "../x", [], {}, [[]]),
    *({"x": 1}, ["x"], "2.9", "12.4+ptxas12.8", "\0"),
)


def _changed(document: bytes, data: bytes) -> bytes:
    """Change a JSON document by threes of bytes: which value (two) is put out or becomes what (one)."""
    plain = json.loads(document)
    for index in range(0, min(len(data) - 2, 30), 3):
        holders = list(_holders(plain))
        holder, key = holders[int.from_bytes(data[index : index + 2]) % len(holders)]
        value = data[index + 2] % (len(_VALUES) + 1)
        if value < len(_VALUES):
            holder[key] = copy.deepcopy(_VALUES[value])
        else:
            del holder[key]
        if not plain:
            break
    return json.dumps(plain).encode()


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, as what holds it and the key or index there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield value, key
        yield from _holders(below)


def _made_lazily(name: str) -> Target:
    """Give the target `name` its seed, changed here and there, which gets further than random bytes do."""
    document = functools.cache(lambda: seeds(name)[0])
    return lambda data: TARGETS[name](_changed(document(), data))


def _signed_statement(data: bytes) -> None:
    """Put a changed statement into an envelope that is signed well."""
    payload, _ = open_envelope(sign(_changed(seeds("statement")[0], data), SIGNER), [KEY], now=NOW)
    TARGETS["statement"](payload)


def _entry() -> Entry:
    """A catalog's entry with every kind of value in it."""
    return Entry(
        project="fa3-fwd",
        version="3.0.0+cu124",
        file="fa3_fwd-3.0.0+cu124-cp39-abi3-manylinux_2_24_x86_64.whl",
        sha256="0" * 64,
        size=1,
        library_size=1,
        metadata_sha256="0" * 64,
        requires_python=">=3.9",
        platform_tags=("manylinux_2_24_x86_64",),
        recipe="fa3-fwd",
        profile="full",
        default=True,
        switches=("DISABLE_FP16",),
        architectures=("sm_90a",),
        toolkit="12.4",
        driver="525.60.13",
        abi=AbiClass.STABLE,
        torch="torch>=2.9",
        cells=(EntryCell(torch="2.9", python="3.11", platform="linux_x86_64", runtime="12.8"),),
        gates=(EntryGate(name="abi3", passed=True),),
        gpu=None,
        commit="de" * 20,
        created="2026-11-27T00:00:00+00:00",
        uploaded="2026-11-27T00:00:00+00:00",
    )


def _record(data: bytes) -> None:
    read = Record.from_json(data, "record").to_json()
    assert Record.from_json(read, "record").to_json() == read  # as bytes, for a NaN in gpu.json is unlike itself


def _catalog(data: bytes) -> None:
    read = Catalog.from_json(data, "catalog")
    assert Catalog.from_json(read.to_json(), "catalog") == read


def _reproduction(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    read_reproduction(value, "result")


def _envelope(data: bytes) -> None:
    open_envelope(data, [KEY], now=NOW)


def _statement(data: bytes) -> None:
    try:
        statement = read_statement(data)
    except ValueError as error:
        raise SourceError(str(error)) from error
    statement_problems(statement, RECORD, "0" * 64, key_ids=[KEY.key_id])


def _key(data: bytes) -> None:
    PublicKey.parse(data.decode("utf-8", "replace"), "key").why_not(NOW)
    read_signer(data, "key")


def _sbom(data: bytes) -> None:
    sbom_problems(data, CONTENTS)


def _judged_by_doctor(envelope: bytes, record: bytes) -> None:
    """Give the doctor an envelope and a record to judge; what it refuses it refuses in one sentence."""
    wanted = known(_entry())[0]
    found = Signed(wheel_sha256=wanted.sha256, record=record, envelope=envelope)
    try:
        check_signature(wanted, found, [NODE_KEY], NOW)
    except UntrustedError as error:
        raise SourceError(str(error)) from error


def _node_envelope(data: bytes) -> None:
    _judged_by_doctor(data, RECORD.to_json())


def _node_record(data: bytes) -> None:
    _judged_by_doctor(_ENVELOPE, data)


def _node_statement(data: bytes) -> None:
    """Put a changed statement into an envelope that is signed well."""
    _judged_by_doctor(sign(_changed(seeds("statement")[0], data), SIGNER), RECORD.to_json())


def _node_key(data: bytes) -> None:
    try:
        read_key(data.decode("utf-8", "replace"), "key")
    except ValueError as error:
        raise SourceError(str(error)) from error


def _node_catalog(data: bytes) -> None:
    try:
        read_entries(json.loads(data), "catalog")
    except (ValueError, RecursionError, UnreadableError) as error:
        raise SourceError(str(error)) from error


TARGETS: Final[Mapping[str, Target]] = {
    "tar": _tar,
    "made-tar": _made_tar,
    "zip": _zip,
    "made-zip": _made_zip,
    "deb": _deb,
    "pack": _pack,
    "wheel": _wheel,
    "made-wheel": _made_wheel,
    "library": _library,
    "yaml": _yaml,
    "record": _record,
    "catalog": _catalog,
    "reproduction": _reproduction,
    "envelope": _envelope,
    "statement": _statement,
    "key": _key,
    "sbom": _sbom,
    "node-envelope": _node_envelope,
    "node-record": _node_record,
    "node-key": _node_key,
    "node-catalog": _node_catalog,
    **{f"made-{name}": _made_lazily(name) for name in ("record", "catalog", "reproduction", "envelope", "statement")},
    "made-sbom": _made_lazily("sbom"),
    "signed-statement": _signed_statement,
    "made-node-statement": _node_statement,
    "made-node-catalog": _made_lazily("node-catalog"),
}


def seeds(name: str) -> list[bytes]:
    """Give a target data that it can read, to begin with."""
    with tempfile.TemporaryDirectory() as place:
        return _SEEDS[name](Path(place)) if name in _SEEDS else [_THREES]


def _archive_seed(kind: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        out = folder / "made"
        if kind == "zip":
            with zipfile.ZipFile(out, "w") as archive:
                archive.writestr("a/b", b"xy")
        else:
            with tarfile.open(out, f"w:{kind}") as tar:  # type: ignore[call-overload]  # one of its literals
                member = tarfile.TarInfo("a/b")
                member.size = 2
                tar.addfile(member, io.BytesIO(b"xy"))
        return [out.read_bytes()]

    return make


def _wheel_seed(folder: Path) -> list[bytes]:
    path, _ = proof_zoo.package(folder)
    return [path.read_bytes()]


def _made_wheel_seed(folder: Path) -> list[bytes]:
    wheel = zoo.opened(folder)
    return [b"\0".join(wheel.files[f"{zoo.INFO}/{name}"] for name in ("METADATA", "WHEEL", "RECORD"))]


def _yaml_seed(_: Path) -> list[bytes]:
    good = PROJECT / "tests" / "data" / "config" / "good"
    return [path.read_bytes() for path in sorted(good.glob("*.yaml"))]


def _envelope_seed(_: Path) -> list[bytes]:
    return [_ENVELOPE]


_SEEDS: Final[Mapping[str, Callable[[Path], list[bytes]]]] = {
    "tar": lambda folder: [*_archive_seed("")(folder), *_archive_seed("gz")(folder), *_archive_seed("xz")(folder)],
    "made-tar": lambda _: [b"a x/y\nb x/z ../q\nc l y\n"],
    "zip": _archive_seed("zip"),
    "made-zip": lambda _: [b"81a4 a/b\n81ed a/c\n"],
    "deb": lambda folder: [deb_zoo.deb(folder / "a.deb", {"usr/bin/x": "x"}).read_bytes()],
    "pack": _archive_seed(""),
    "wheel": _wheel_seed,
    "made-wheel": _made_wheel_seed,
    "library": lambda _: [zoo.library()],
    "yaml": _yaml_seed,
    "record": lambda _: [RECORD.to_json()],
    "catalog": lambda _: [Catalog.of((_entry(),)).to_json()],
    "reproduction": lambda _: [b'{"created": "x", "machine": "x", "engine": "x", "by": null}'],
    "envelope": _envelope_seed,
    "statement": lambda _: [make_statement(RECORD, b"", key_id=KEY.key_id)],
    "key": lambda _: [PUBLIC, PRIVATE],
    "sbom": lambda _: [make_sbom(CONTENTS)],
    "node-envelope": _envelope_seed,
    "node-record": lambda _: [RECORD.to_json()],
    "node-key": lambda _: [PUBLIC],
    "node-catalog": lambda _: [Catalog.of((_entry(),)).to_json()],
}
_THREES: Final = bytes(range(9))


def try_out(name: str, data: bytes) -> None:
    """Give data to a target; a refusal is as good as an answer, everything else comes out."""
    try:
        TARGETS[name](data)
    except REFUSALS:
        return
