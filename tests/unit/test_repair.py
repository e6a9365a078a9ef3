"""Repair with the real auditwheel on real libraries: the tag that is proven, and bytes that do not vary."""

import os
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import RepairError
from hopperforge.model.wheel import RawWheel, RepairedWheel
from hopperforge.report import Recorder
from hopperforge.stages.elf import newest_versions, read_library, section_of, shown_symbols, weaken_unique
from hopperforge.stages.repair import repair
from hopperforge.stages.wheel_archive import make_record, read_wheel, write_wheel

SBOM = f"{zoo.INFO}/sboms/fa3_fwd.cdx.json"
NEEDED = ("libtorch_cpu.so", "libc10.so")
# memcpy@GLIBC_2.14 is what sets the tag: on every glibc this links against, with no newer symbol beside it
OLD = """
extern "C" void* memcpy(void*, const void*, unsigned long);
extern "C" void* PyInit__C(void* a, void* b, unsigned long n) { return memcpy(a, b, n); }
"""


def _repaired(folder: Path, raw: Path, needed: tuple[str, ...] = NEEDED) -> RepairedWheel:
    workspace = zoo.workspace(folder)
    return repair(
        RawWheel(path=raw), needed=frozenset(needed), epoch=zoo.EPOCH, sbom=b"{}", workspace=workspace, work=folder
    )


def test_tag_comes_from_the_symbols_and_nothing_is_packed_in(tmp_path: Path) -> None:
    library = zoo.library(OLD, "-fno-builtin", needed=NEEDED)
    repaired = _repaired(tmp_path, zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: library})))
    assert repaired.platform_tags == ("manylinux2014_x86_64", "manylinux_2_17_x86_64")
    assert repaired.path.name == f"fa3_fwd-{zoo.VERSION}-cp39-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
    wheel = read_wheel(repaired.path)
    assert wheel.files[zoo.LIBRARY] == library
    assert set(wheel.files) == {*zoo.files(), SBOM}
    assert wheel.files[SBOM] == b"{}"
    assert "Tag: cp39-abi3-manylinux_2_17_x86_64" in wheel.text("WHEEL").splitlines()


def test_report_names_the_symbol_that_set_the_tag(tmp_path: Path) -> None:
    library = zoo.library(OLD, "-fno-builtin")
    workspace = zoo.workspace(tmp_path)
    raw = RawWheel(path=zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: library})))
    repair(raw, needed=frozenset(), epoch=zoo.EPOCH, sbom=b"", workspace=workspace, work=tmp_path)
    assert isinstance(workspace.reporter, Recorder)
    assert any("GLIBC_2.14 (memcpy)" in note for note in workspace.reporter.notes)


def test_equal_content_gives_equal_bytes_whatever_the_archive_was(tmp_path: Path) -> None:
    members = zoo.files()
    first = zoo.write(tmp_path / "a", members)
    second = zoo.write(tmp_path / "b", dict(reversed(members.items())))
    os.utime(second, (1, 1))
    one = _repaired(tmp_path / "one", first).path.read_bytes()
    assert one == _repaired(tmp_path / "two", second).path.read_bytes()


def test_archive_is_sorted_dated_and_ends_with_a_true_record(tmp_path: Path) -> None:
    path = _repaired(tmp_path, zoo.write(tmp_path / "raw", zoo.files())).path
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == [
        "fa3_fwd/_C.abi3.so",
        "fa3_fwd/__init__.py",
        f"{zoo.INFO}/METADATA",
        f"{zoo.INFO}/WHEEL",
        SBOM,
        f"{zoo.INFO}/RECORD",
    ]
    assert {member.date_time for member in members} == {(2023, 11, 14, 22, 13, 20)}
    wheel = read_wheel(path)
    assert wheel.files[f"{zoo.INFO}/RECORD"] == make_record(
        {name: data for name, data in wheel.files.items() if name != f"{zoo.INFO}/RECORD"}, f"{zoo.INFO}/RECORD"
    )


def test_modes_are_644_or_755_whatever_the_umask_was(tmp_path: Path) -> None:
    source = tmp_path / "source.whl"
    with zipfile.ZipFile(source, "w") as archive:
        for name, mode in (("p/run", 0o700), ("p/data", 0o600), (f"{zoo.INFO}/RECORD", 0o640)):
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(member, b"")
    write_wheel(tmp_path / "out.whl", read_wheel(source), epoch=0)
    with zipfile.ZipFile(tmp_path / "out.whl") as archive:
        modes = {member.filename: stat.S_IMODE(member.external_attr >> 16) for member in archive.infolist()}
        dates = {member.date_time[0] for member in archive.infolist()}
    assert modes == {"p/run": 0o755, "p/data": 0o644, f"{zoo.INFO}/RECORD": 0o644}
    assert dates == {1980}  # zip knows no earlier year


def test_record_quotes_names_with_commas() -> None:
    assert b'"a,b.py",sha256=' in make_record({"a,b.py": b""}, "x.dist-info/RECORD")


def test_wheel_without_a_library_is_refused_with_the_log(tmp_path: Path) -> None:
    raw = zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: None}))
    with pytest.raises(RepairError, match="no platform tag") as caught:
        _repaired(tmp_path, raw)
    log = Path(next(line for line in caught.value.detail if line.startswith("log: ")).removeprefix("log: "))
    assert "does not look like a platform wheel" in log.read_text()
    assert caught.value.hint == f"python -m auditwheel show {raw}"


def test_library_of_nobody_is_refused_with_its_newest_symbols(tmp_path: Path) -> None:
    library = zoo.library(OLD, "-fno-builtin", needed=("libmystery.so.7",))
    with pytest.raises(RepairError) as caught:
        _repaired(tmp_path, zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: library})))
    assert any("libmystery.so.7" in line for line in caught.value.detail)
    assert caught.value.detail[0].startswith(f"{zoo.LIBRARY} asks for ")
    assert "GLIBC_2.14 (memcpy)" in caught.value.detail[0]


def test_no_half_made_wheel_stays_behind(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    raw = RawWheel(path=zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: None})))
    with pytest.raises(RepairError):
        repair(raw, needed=frozenset(), epoch=0, sbom=b"", workspace=zoo.workspace(tmp_path), work=work)
    assert list(work.iterdir()) == []


def test_users_auditwheel_settings_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITWHEEL_PLAT", "manylinux_2_34_x86_64")
    monkeypatch.setenv("AUDITWHEEL_ZIP_COMPRESSION_LEVEL", "no number")
    library = zoo.library(OLD, "-fno-builtin")
    repaired = _repaired(tmp_path, zoo.write(tmp_path / "raw", zoo.files({zoo.LIBRARY: library})))
    assert "manylinux_2_17_x86_64" in repaired.platform_tags


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04"])
def test_unreadable_wheel_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "broken.whl"
    path.write_bytes(damage)
    with pytest.raises(RepairError, match=r"broken\.whl cannot be read as a wheel"):
        read_wheel(path)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("endless-versions", "its table of needed versions leads back to itself"),
        ("string-table-that-is-none", "a part of it is of another kind than its headers say"),
    ],
)
def test_a_damaged_library_is_refused_with_a_reason(case: str, reason: str) -> None:
    data = (Path(__file__).parents[1] / "data" / "fuzz" / "library" / case).read_bytes()
    with pytest.raises(ValueError, match=reason):
        read_library(data)


def test_truncated_library_is_no_library() -> None:
    whole = zoo.library()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="no readable shared library"):
            read_library(whole[:length])


def test_newest_version_of_each_family_is_found_by_number() -> None:
    found = newest_versions(read_library(zoo.library(OLD, "-fno-builtin")))
    assert "GLIBC_2.14 (memcpy)" in found  # 2.2.5 is beside it, and sorts later as text


def test_symbols_that_a_process_has_once_become_weak_and_nothing_else_changes(tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text("inline int once = 1;\nint f() { return ++once; }\n")
    subprocess.run(["g++", "-c", "-fgnu-unique", "a.cpp"], cwd=tmp_path, check=True)
    before = (tmp_path / "a.o").read_bytes()
    after = weaken_unique(before)
    (tmp_path / "b.o").write_bytes(after)
    kinds = [
        {line.split()[-1]: line.split()[-2] for line in listing.splitlines()}
        for listing in (
            subprocess.run(["nm", name], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
            for name in ("a.o", "b.o")
        )
    ]
    assert kinds == [{"once": "u", "_Z1fv": "T"}, {"once": "V", "_Z1fv": "T"}]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    assert shown_symbols(after) == shown_symbols(before) == ("_Z1fv", "once")


@pytest.mark.parametrize("read", [shown_symbols, weaken_unique, lambda data: section_of(data, ".text")])
def test_damaged_objects_are_refused_like_libraries(tmp_path: Path, read: Callable[[bytes], object]) -> None:
    (tmp_path / "a.cpp").write_text("int a;\nint f() { return a; }\n")
    subprocess.run(["g++", "-c", "a.cpp"], cwd=tmp_path, check=True)
    whole = (tmp_path / "a.o").read_bytes()
    assert read(whole)
    for length in range(0, len(whole) - 1, 97):
        with pytest.raises(ValueError, match=r"cannot be read|no readable object"):
            read(whole[:length])
    claimed = whole[:40] + (2**40).to_bytes(8, "little") + whole[48:]  # sections lie where the file has none
    with pytest.raises(ValueError, match=r"cannot be read|no readable object"):
        read(claimed)
