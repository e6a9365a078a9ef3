"""The stored hashes: what a difference is called, and how the file is renewed."""

import dataclasses
import json
from pathlib import Path

import pytest
from tests import reproduced
from tests.unit.record_zoo import PACK, record


def test_the_stored_file_has_what_a_record_gives() -> None:
    stored = json.loads(reproduced.STORED.read_text())
    assert list(stored) == list(reproduced.expected_of(record()))
    assert len(stored["objects"]) == 2
    assert stored["wheel"]["file"].startswith("fa3_fwd-3.0.0+cu124.hdim128.bf16-cp39-abi3-manylinux_2_")


def test_equal_is_no_complaint_and_each_difference_is_named() -> None:
    stored = reproduced.expected_of(record())
    assert reproduced.moved(stored, stored) == []
    unit = dataclasses.replace(PACK.units[0], sha256="ff" * 32)
    other = record(pack=dataclasses.replace(PACK, units=(unit,)))
    gone = stored["objects"][PACK.units[1].path]
    assert reproduced.moved(stored, reproduced.expected_of(other)) == [
        f"objects a.cu sha256: stored is {'08' * 32}, and here it is {'ff' * 32}",
        f"objects merged/b-x2-0123abcd.cu: stored is {gone}, and here it is None",
    ]


def test_the_complaint_says_how_to_renew_the_file() -> None:
    text = reproduced.complaint(record(), "cuda=13.0")
    assert text.startswith(
        "the bytes are not those of tests/data/reproduced.json:\ncell: stored is cuda=12.4+ptxas12.8 "
    )
    assert text.splitlines()[-1] == (
        "if that is meant: nox -s build -- cuda=13.0 && "
        "python -m tests.reproduced wheelhouse/fa3_fwd-3.0.0+cu130-cp39-abi3-manylinux_2_17_x86_64.whl.json"
    )


def test_another_zlib_packs_another_wheel_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = dataclasses.replace(record().front, tools={"zlib": "1.2.13"})
    stored = tmp_path / "reproduced.json"
    stored.write_text(json.dumps(reproduced.expected_of(record(front=front))))
    monkeypatch.setattr(reproduced, "STORED", stored)
    wheel = dataclasses.replace(record().wheel, sha256="ff" * 32)
    newer = dataclasses.replace(front, tools={"zlib": "1.3.1"})
    assert reproduced.complaint(record(front=newer, wheel=wheel), "") == ""
    assert "wheel sha256: stored is" in reproduced.complaint(record(front=front, wheel=wheel), "")
    unit = dataclasses.replace(PACK.units[0], sha256="ff" * 32)
    moved = record(front=newer, wheel=wheel, pack=dataclasses.replace(PACK, units=(unit, *PACK.units[1:])))
    assert "objects a.cu sha256: stored is" in reproduced.complaint(moved, "")
