"""Lines that install a package: which page, quoting for the shell, the hash, and what they may never hold."""

import shlex
from dataclasses import fields, replace

import pytest
from tests.unit.entry_zoo import entry

from hopperforge.index.commands import installation, installation_from_server, page_folder
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion

CU128 = CudaVersion.parse("12.8")
TORCH = TorchVersion.parse("2.6")
FILE = "https://wheels.example/fa3/pool/fa3-fwd/fa3_fwd-3.0.0%2Bcu124-cp39-abi3-manylinux_2_17_x86_64.whl"
HASH = "ab" * 32


def test_the_first_line_names_the_file_and_its_hash() -> None:
    lines = installation(entry(), "https://wheels.example/fa3/", CU128, TORCH)
    assert lines.url == f"{FILE}#sha256={HASH}"
    assert lines.direct == f"fa3-fwd @ {FILE}#sha256={HASH}"
    assert lines.pip == f"pip install --no-deps '{lines.direct}'"
    assert shlex.split(lines.uv) == ["uv", "pip", "install", "--no-deps", lines.direct]


def test_the_second_line_names_the_page_the_version_and_the_hash() -> None:
    lines = installation(entry(), "https://wheels.example/fa3", CU128, TORCH)
    page = "https://wheels.example/fa3/cu128/simple/"
    assert lines.page == page
    assert lines.pinned == f"fa3-fwd==3.0.0+cu124 --hash=sha256:{HASH}"
    assert lines.pip_by_page == (
        f"echo '{lines.pinned}' | pip install --no-deps --require-hashes --index-url {page} -r /dev/stdin"
    )
    assert lines.uv_by_page == (
        f"echo '{lines.pinned}' | uv pip install --no-deps --require-hashes --index {page} -r /dev/stdin"
    )


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
    assert page_folder(replace(entry(), abi=abi, default=default), CU128, TORCH) == folder


def test_no_line_asks_for_the_best_of_several_indexes() -> None:
    lines = installation(entry(), "https://wheels.example", CU128, TORCH)
    for text in (getattr(lines, field.name) for field in fields(lines)):
        assert "extra-index-url" not in text
        assert HASH in text or text == lines.page


def test_an_upload_server_has_its_own_addresses() -> None:
    lines = installation_from_server(entry(), "http://host/f/aa/fa3_fwd.whl#sha256=00", "http://host/cu128/+simple/")
    assert lines.url == f"http://host/f/aa/fa3_fwd.whl#sha256={HASH}"
    assert "--index-url http://host/cu128/+simple/ " in lines.pip_by_page


def test_an_address_cannot_end_the_quotes() -> None:
    lines = installation(entry(), "https://wheels.example/a'; rm -rf /", CU128, TORCH)
    assert shlex.split(lines.pip)[-1] == lines.direct
    assert shlex.split(lines.pip_by_page)[-3] == lines.page
