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


def test_the_wheels_own_hash_is_compared_on_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "reproduced.json"
    stored.write_text(json.dumps(reproduced.expected_of(record())))
    monkeypatch.setattr(reproduced, "STORED", stored)
    assert reproduced.complaint(record(), "") == ""
    wheel = dataclasses.replace(record().wheel, sha256="ff" * 32)
    assert "wheel sha256: stored is" in reproduced.complaint(record(wheel=wheel), "")
    unit = dataclasses.replace(PACK.units[0], sha256="ff" * 32)
    moved = record(pack=dataclasses.replace(PACK, units=(unit, *PACK.units[1:])))
    assert "objects a.cu sha256: stored is" in reproduced.complaint(moved, "")
