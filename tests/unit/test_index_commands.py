"""Lines that install a package: which page, quoting for the shell, the hash, and what they may never hold."""

import shlex
from dataclasses import fields, replace

import pytest
from tests.unit import index_zoo as zoo

from hopperforge.index.commands import installation, installation_from_server, page_folder
from hopperforge.index.pages import shelves_of
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion

CU128 = CudaVersion.parse("12.8")
TORCH = TorchVersion.parse("2.6")
FILE = "https://wheels.example/fa3/pool/fa3-fwd/fa3_fwd-3.0.0%2Bcu124-cp39-abi3-manylinux_2_28_x86_64.whl"
ENTRY = zoo.entry("3.0.0+cu124")
HASH = ENTRY.sha256


def test_the_first_line_names_the_file_and_its_hash() -> None:
    lines = installation(ENTRY, "https://wheels.example/fa3/", CU128, TORCH)
    assert lines.url == f"{FILE}#sha256={HASH}"
    assert lines.direct == f"fa3-fwd @ {FILE}#sha256={HASH}"
    assert lines.pip == f"pip install --no-deps '{lines.direct}'"
    assert shlex.split(lines.uv) == ["uv", "pip", "install", "--no-deps", lines.direct]


def test_the_second_line_names_the_page_the_version_and_the_hash() -> None:
    lines = installation(ENTRY, "https://wheels.example/fa3", CU128, TORCH)
    assert lines.index == "https://wheels.example/fa3/cu128/simple/"
    assert lines.page == f"{lines.index}fa3-fwd/index.html"
    assert lines.pinned == f"fa3-fwd==3.0.0+cu124 --hash=sha256:{HASH}"
    assert lines.pip_by_page == (
        f"echo '{lines.pinned}' | "
        f"pip install --no-deps --no-index --find-links {lines.page} --require-hashes -r /dev/stdin"
    )
    assert lines.uv_by_page == (
        f"echo '{lines.pinned}' | "
        f"uv pip install --no-deps --no-index --find-links {lines.page} --require-hashes -r /dev/stdin"
    )


@pytest.mark.parametrize("version", ["3.0.0+cu124", "3.0.0+cu124torch2.6"])
@pytest.mark.parametrize("default", [True, False])
def test_the_page_is_one_that_the_index_has(version: str, *, default: bool) -> None:
    found = zoo.entry(version, cells=zoo.cells("2.6"), default=default, profile="full")
    assert page_folder(found, CU128, TORCH) in shelves_of(found, [CU128])


@pytest.mark.parametrize(
    ("abi", "default", "folder"),
    [
        (AbiClass.STABLE, True, "cu128"),
        (AbiClass.STABLE, False, "cu128/fa3-fwd"),
        (AbiClass.PER_TORCH, True, "cu128/torch2.6"),
        (AbiClass.PER_TORCH, False, "cu128/torch2.6/fa3-fwd"),
    ],
)
def test_the_page_is_the_narrowest_that_lists_the_file(abi: AbiClass, *, default: bool, folder: str) -> None:
    assert page_folder(replace(ENTRY, abi=abi, default=default), CU128, TORCH) == folder


def test_no_line_asks_for_the_best_of_several_indexes() -> None:
    lines = installation(ENTRY, "https://wheels.example", CU128, TORCH)
    for text in (getattr(lines, field.name) for field in fields(lines)):
        assert "index-url" not in text
        assert HASH in text or text in (lines.index, lines.page)


def test_an_upload_server_has_its_own_addresses() -> None:
    lines = installation_from_server(ENTRY, "http://host/f/aa/fa3_fwd.whl#sha256=00", "http://host/cu128/+simple/")
    assert lines.url == f"http://host/f/aa/fa3_fwd.whl#sha256={HASH}"
    assert lines.page == "http://host/cu128/+simple/fa3-fwd/"
    assert f"--find-links {lines.page} " in lines.pip_by_page


def test_an_address_cannot_end_the_quotes() -> None:
    lines = installation(ENTRY, "https://wheels.example/a'; rm -rf /", CU128, TORCH)
    assert shlex.split(lines.pip)[-1] == lines.direct
    assert lines.page in shlex.split(lines.uv_by_page)
