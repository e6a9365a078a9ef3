"""Wheelhouses of tiny wheels with whole records, and looks at what became of them in an index."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

from tests.unit import wheel_zoo
from tests.unit.record_zoo import GATES, TOOLKIT, record

from hopperforge.config.project import Project, load_project
from hopperforge.index.catalog import Catalog
from hopperforge.index.whole import CATALOG_NAME, index_files
from hopperforge.model.record import Record, ServedCell, WheelFacts
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult
from hopperforge.provenance.envelope import sign
from hopperforge.provenance.keys import make_key_pair, read_signer
from hopperforge.provenance.statement import make_statement
from hopperforge.report import Recorder
from hopperforge.stages.parcels import from_wheelhouse
from hopperforge.stages.publish import Parcel
from hopperforge.stages.wheel_archive import make_record
from hopperforge.store.targets import Target
from hopperforge.store.wheelhouse import Shelved, Wheelhouse

MOMENT = "2026-11-22T08:30:15+00:00"
STABLE = "3.0.0+cu130"
BOUND = "3.0.0+cu124torch2.6"
ROOT = "http://index.invalid/"


def gpu_proof(sha256: str) -> dict[str, Any]:
    """What the smoke tests of a wheel with this sha256 leave."""
    proof = {"gpu": "NVIDIA H200", "driver": "580.95.05", "torch": "2.11.0+cu130"}
    return {**proof, "sha256": sha256, "passed": 89, "failed": 0, "complete": True, "tflops": []}


def members(version: str, payload: bytes = b"") -> dict[str, bytes]:
    """The files of a tiny wheel with a true RECORD."""
    info = f"fa3_fwd-{version}.dist-info"
    content = {
        "fa3_fwd/__init__.py": b'"""A package."""\n' + payload,
        f"{info}/METADATA": wheel_zoo.metadata(version),
        f"{info}/WHEEL": wheel_zoo.wheel_file(wheel_zoo.TAG),
    }
    return {**content, f"{info}/RECORD": make_record(content, f"{info}/RECORD")}


def shelve(
    wheelhouse: Path,
    version: str = STABLE,
    *,
    payload: bytes = b"",
    files: Mapping[str, bytes] | None = None,
    proven: bool = True,
    **changes: Any,
) -> Path:
    """Put a tiny wheel of `version` and its record into a wheelhouse, with `changes` made to the record."""
    wheelhouse.mkdir(parents=True, exist_ok=True)
    path = wheelhouse / f"fa3_fwd-{version}-{wheel_zoo.TAG}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files or members(version, payload)).items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of no time of its own: the same bytes tomorrow
    write_record(path, record_of(path, version, proven=proven, **changes))
    return path


def record_of(path: Path, version: str = STABLE, *, proven: bool = True, **changes: Any) -> Record:
    """The record of a wheel, with every proof unless told otherwise."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    label = version.partition("+cu")[2]
    torch = label.partition("torch")[2] or "2.11"
    toolkit = ToolkitVersion.parse(f"{label[:2]}.{label[2:3]}")
    imported = GateResult(name=f"import with torch {torch} in python 3.11", passed=True, detail="4 operators")
    fields: dict[str, Any] = {
        "version": version,
        "wheel": WheelFacts(
            file=path.name,
            sha256=digest,
            size=len(data),
            library_size=17,
            platform_tags=("manylinux_2_17_x86_64",),
        ),
        "profile": "fa3-fwd",
        "cells": (
            ServedCell(
                cuda=toolkit,
                torch=TorchVersion.parse(torch),
                python=PythonVersion.parse("3.11"),
                platform="linux_x86_64",
                runtime=CudaVersion(toolkit.cuda.major, toolkit.cuda.minor),
            ),
        ),
        "toolkit": replace(TOOLKIT, version=toolkit),
        "gates": (*GATES, imported) if proven else GATES,
        "gpu": gpu_proof(digest) if proven else None,
    }
    return record(**(fields | changes))


def write_record(path: Path, made: Record) -> None:
    """Put a record beside a wheel."""
    path.with_name(path.name + ".json").write_bytes(made.to_json())


def signature_over(path: Path) -> bytes:
    """Sign the record beside a wheel with a key made for it: no two are the same."""
    private, _ = make_key_pair("zoo", now=datetime(2026, 11, 27, tzinfo=UTC), days=1)
    data = path.with_name(path.name + ".json").read_bytes()
    signer = read_signer(private, "key")
    return sign(make_statement(Record.from_json(data, "record"), data, key_id=signer.public_key.keyid), signer)


def project(root: Path) -> Project:
    """The real project's facts."""
    return load_project(root)


def packages(wheelhouse: Path) -> tuple[Shelved, ...]:
    """The packages of a wheelhouse."""
    return Wheelhouse(wheelhouse, Recorder()).packages()


def parcels(wheelhouse: Path, facts: Project, moment: str = MOMENT) -> list[Parcel]:
    """Everything in a wheelhouse as parcels; all of it must be what its records say."""
    candidates = [from_wheelhouse(package, facts, moment) for package in packages(wheelhouse)]
    assert [found.wrong for found in candidates] == [()] * len(candidates)
    return [found.parcel for found in candidates if found.parcel is not None]


def fetched(target: Target, name: str) -> bytes:
    """The bytes of a file that must be in an index."""
    held = target.fetch(name)
    assert held is not None, f"{name} is missing"
    return held.data


def catalog_of(target: Target) -> Catalog:
    """The catalog of an index; an empty one if there is none."""
    held = target.fetch(CATALOG_NAME)
    return Catalog.of(()) if held is None else Catalog.from_json(held.data, CATALOG_NAME)


def assert_sound(target: Target) -> None:
    """Every file that the catalog or any page lists is in the pool with its sha256, and its metadata beside it."""
    catalog = catalog_of(target)
    for entry in catalog.packages:
        assert hashlib.sha256(fetched(target, entry.path)).hexdigest() == entry.sha256
        assert hashlib.sha256(fetched(target, entry.path + ".metadata")).hexdigest() == entry.metadata_sha256
        assert Record.from_json(fetched(target, entry.path + ".json"), entry.path).wheel.sha256 == entry.sha256
    for name in index_files(catalog):
        held = target.fetch(name)
        if held is not None and "/simple/" in name:
            assert_page_sound(target, name, held.data)


def assert_page_sound(target: Target, name: str, data: bytes) -> None:
    """Every file that a page lists is in the pool with its sha256; every project that a list names has its page."""
    for address in _json_links(data) if name.endswith(".json") else _html_links(data):
        path, _, digest = unquote(urljoin(ROOT + name, address)).removeprefix(ROOT).partition("#sha256=")
        found = fetched(target, path + "index.html" if path.endswith("/") else path)
        assert not digest or hashlib.sha256(found).hexdigest() == digest


def _json_links(data: bytes) -> list[str]:
    page = json.loads(data)
    files = [f"{found['url']}#sha256={found['hashes']['sha256']}" for found in page.get("files", [])]
    return files + [f"{found['name']}/" for found in page.get("projects", [])]


def _html_links(data: bytes) -> list[str]:
    found: list[str] = []

    class _Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for key, value in attrs if (tag, key) == ("a", "href") and value)

    _Links().feed(data.decode())
    return found


def assert_current(target: Target) -> None:
    """Every file that follows from the catalog is there, with the bytes that follow from it."""
    files = index_files(catalog_of(target))
    assert {name: fetched(target, name) for name in files} == dict(files)
