"""Packs: the same objects give the same bytes, and a damaged pack gives none."""

import dataclasses
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopperforge.errors import CompileError, SourceError
from hopperforge.model.pack import Cost, PackedUnit, pack_key
from hopperforge.report import Recorder
from hopperforge.store.packs import find_pack, read_pack, store_pack, write_pack

OBJECTS: Mapping[str, bytes] = {
    "hopper/instantiations/flash_fwd_hdim128_bf16_sm90.cu": b"attention" * 1000,
    "hopper/flash_prepare_scheduler.cu": b"scheduler",
    "hopper/flash_fwd_combine.cu": b"",
}


def packed(path: str, cost: Cost | None = None) -> PackedUnit:
    data = OBJECTS[path]
    return PackedUnit(
        path=path,
        key=hashlib.sha256(path.encode()).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        cost=cost,
    )


def read(unit: PackedUnit) -> bytes:
    return OBJECTS[unit.path]


UNITS = [packed(path) for path in OBJECTS]


def test_objects_come_back_sorted(tmp_path: Path) -> None:
    archive = tmp_path / "pack.tar"
    sha256 = write_pack(UNITS, read, archive)
    assert sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    paths = read_pack(archive, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths] == [
        "flash_fwd_combine.o",
        "flash_fwd_hdim128_bf16_sm90.o",
        "flash_prepare_scheduler.o",
    ]
    assert [path.read_bytes() for path in paths] == [b"", b"attention" * 1000, b"scheduler"]


def test_the_bytes_are_these(tmp_path: Path) -> None:
    """A change of the format must change PACK_FORMAT: archives in stores carry it in their key."""
    sha256 = write_pack(UNITS, read, tmp_path / "pack.tar")
    assert sha256 == "05014e8289da5d6ed97680f7607cb255f720633785b8826f0ee88bc8f574d6af"


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(UNITS), umask=st.sampled_from([0o000, 0o022, 0o077]), seconds=st.floats(0, 1e6))
def test_order_umask_and_cost_change_no_byte(
    tmp_path_factory: pytest.TempPathFactory, order: list[PackedUnit], umask: int, seconds: float
) -> None:
    folder = tmp_path_factory.mktemp("packs")
    costly = [dataclasses.replace(unit, cost=Cost(seconds=seconds, peak_rss=1)) for unit in order]
    before = os.umask(umask)
    try:
        mixed = write_pack(costly, read, folder / "mixed.tar")
    finally:
        os.umask(before)
    assert mixed == write_pack(UNITS, read, folder / "plain.tar")


def test_members_have_fixed_metadata_and_the_manifest_is_first(tmp_path: Path) -> None:
    write_pack(UNITS, read, tmp_path / "pack.tar")
    with tarfile.open(tmp_path / "pack.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "manifest.json",
        "objects/flash_fwd_combine.o",
        "objects/flash_fwd_hdim128_bf16_sm90.o",
        "objects/flash_prepare_scheduler.o",
    ]
    assert {(each.mtime, each.uid, each.gid, each.uname, each.gname, each.mode) for each in members} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_a_long_unit_name_survives(tmp_path: Path) -> None:
    path = f"hopper/{'x' * 150}.cu"
    unit = PackedUnit(path=path, key="k", sha256=hashlib.sha256(b"o").hexdigest(), size=1, cost=None)
    first = write_pack([unit], lambda _: b"o", tmp_path / "a.tar")
    assert write_pack([unit], lambda _: b"o", tmp_path / "b.tar") == first
    assert read_pack(tmp_path / "a.tar", tmp_path / "out")[0].read_bytes() == b"o"


def test_wrong_bytes_are_not_packed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not match its sha256"):
        write_pack(UNITS, lambda _: b"wrong", tmp_path / "pack.tar")
    assert list(tmp_path.iterdir()) == []


def test_two_units_of_one_name_are_refused(tmp_path: Path) -> None:
    twins = [dataclasses.replace(UNITS[0], path="hopper/a.cu"), dataclasses.replace(UNITS[0], path="hopper/b/a.cu")]
    with pytest.raises(CompileError, match=r"2 units would both be objects/a\.o") as caught:
        write_pack(twins, read, tmp_path / "pack.tar")
    assert caught.value.detail == ("hopper/a.cu", "hopper/b/a.cu")


def repacked(source: Path, target: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            stream = old.extractfile(member)
            changed = change(member.name, stream.read() if stream else b"")
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                new.addfile(info, io.BytesIO(changed[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: (name, data.replace(b"attentionatt", b"ATTENTIONatt")), "does not match its sha256"),
        (lambda name, data: (name, b"" if name.endswith("bf16_sm90.o") else data), "does not match its sha256"),
        (lambda name, data: None if name.endswith("scheduler.o") else (name, data), "is missing"),
        (lambda name, data: None if name == "manifest.json" else (name, data), "does not begin with manifest.json"),
        (lambda name, data: (name, b"{}" if name == "manifest.json" else data), "manifest.json is not one"),
        (
            lambda name, data: (name, data.replace(b'"format":2', b'"format":3') if name == "manifest.json" else data),
            "its format is 3",
        ),
        (lambda name, data: (name.replace("objects/", "../"), data), "is missing"),
    ],
)
def test_a_changed_pack_is_refused(
    tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], message: str
) -> None:
    write_pack(UNITS, read, tmp_path / "pack.tar")
    repacked(tmp_path / "pack.tar", tmp_path / "bad.tar", change)
    with pytest.raises(SourceError, match=message) as caught:
        read_pack(tmp_path / "bad.tar", tmp_path / "out")
    assert "bad.tar is damaged" in caught.value.sentence


def test_an_extra_member_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "pack.tar"
    write_pack(UNITS, read, archive)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO(b""))
    with pytest.raises(SourceError, match="evil is not in the manifest"):
        read_pack(archive, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_a_link_in_place_of_an_object_is_refused(tmp_path: Path) -> None:
    write_pack(UNITS[:1], read, tmp_path / "pack.tar")
    with tarfile.open(tmp_path / "pack.tar") as old, tarfile.open(tmp_path / "bad.tar", "w") as new:
        manifest, member = old.getmembers()
        new.addfile(manifest, old.extractfile(manifest))
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
        new.addfile(member)
    with pytest.raises(SourceError, match="is not a file"):
        read_pack(tmp_path / "bad.tar", tmp_path / "out")


@pytest.mark.parametrize("size", [0, 10, 512, 700, 1536, 6000])
def test_a_truncated_pack_is_refused(tmp_path: Path, size: int) -> None:
    archive = tmp_path / "pack.tar"
    write_pack(UNITS, read, archive)
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(SourceError, match="is damaged"):
        read_pack(archive, tmp_path / "out")


def test_a_missing_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.tar does not exist"):
        read_pack(tmp_path / "none.tar", tmp_path / "out")


COSTLY = [packed(path, Cost(seconds=1.5, peak_rss=7)) for path in OBJECTS]


def test_a_stored_pack_is_found_again_with_its_costs(tmp_path: Path) -> None:
    stored = store_pack(tmp_path, COSTLY, read, compiled=2)
    assert stored.archive == tmp_path / f"{stored.key}.tar"
    assert stored.key == pack_key({unit.path: unit.key for unit in COSTLY})
    reporter = Recorder()
    assert find_pack(tmp_path, stored.key, reporter) == dataclasses.replace(stored, compiled=0)
    assert reporter.warnings == []
    assert find_pack(tmp_path, "0" * 64, reporter) is None


def test_a_damaged_stored_pack_is_reported_and_removed(tmp_path: Path) -> None:
    stored = store_pack(tmp_path, COSTLY, read, compiled=0)
    content = bytearray(stored.archive.read_bytes())
    content[700] ^= 1
    stored.archive.write_bytes(content)
    reporter = Recorder()
    assert find_pack(tmp_path, stored.key, reporter) is None
    assert "does not match the sha256" in reporter.warnings[0]
    assert list(tmp_path.iterdir()) == []


def test_a_pack_without_its_note_is_not_trusted(tmp_path: Path) -> None:
    stored = store_pack(tmp_path, COSTLY, read, compiled=0)
    (tmp_path / f"{stored.key}.json").unlink()
    assert find_pack(tmp_path, stored.key, Recorder()) is None
