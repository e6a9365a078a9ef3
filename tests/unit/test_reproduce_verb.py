"""The verb reproduce, as far as it goes without building: words, records, members, and joining what came of it."""

import dataclasses
import json
from pathlib import Path

import pytest
from tests.unit import proof_zoo
from tests.unit import wheel_zoo as zoo
from tests.unit.record_zoo import REPRODUCTION
from tests.unit.record_zoo import record as record_of_the_zoo

from hopperforge.cli import run_command
from hopperforge.errors import CompileError, GateError, ToolError
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.record import FileFacts, Record
from hopperforge.model.versions import PythonVersion
from hopperforge.run.files import write_atomic
from hopperforge.stages import rebuild
from hopperforge.stages.front_inputs import last_writers, packaging_writers
from hopperforge.stages.front_own import own_writers
from hopperforge.stages.wheel_archive import read_wheel, write_wheel
from hopperforge.verbs import Call
from hopperforge.verbs_proof import _compare, beside, file_of


@pytest.fixture
def house(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheelhouse with one package, and the command line in front of it."""
    folder = tmp_path / "wheelhouse"
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOPPERFORGE_WHEELHOUSE", str(folder))
    path, record = proof_zoo.package(folder)
    Path(f"{path}.json").write_bytes(dataclasses.replace(record, reproduced=()).to_json())
    return folder


def _wheel(house: Path) -> Path:
    (path,) = house.glob("*.whl")
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the word wheel= is missing"),
        (["wheel=nowhere.whl"], "there is no file nowhere.whl"),
        (["wheel=a.whl", "objects=some"], "objects=some: there is new"),
        (["wheel=a.whl", "colour=red"], "unknown word colour=red"),
        (["twice", "profile=none"], "profile=none"),
        (["wheel=http://user:secret@127.0.0.1/pool/"], "http://127.0.0.1/pool/ is not the address of a wheel"),
    ],
)
def test_wrong_words_are_refused(house: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.is_dir()
    assert run_command(["reproduce", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://h/pool/fa3-fwd/fa3-3.0.0%2Bcu130.whl", "fa3-3.0.0+cu130.whl"),
        ("https://h/fa3-3.0.0+cu130.whl?X-Sig=a/b.zip#sha256=00", "fa3-3.0.0+cu130.whl"),
        ("https://h/pool/..%2F..%2Fa.whl", "a.whl"),
    ],
)
def test_the_file_of_an_address_is_a_plain_name(address: str, name: str) -> None:
    assert file_of(address) == name


def test_the_record_of_an_address_is_beside_it() -> None:
    assert beside("https://h/a%2B1.whl?token=x#sha256=00", ".json") == "https://h/a%2B1.whl.json?token=x"
    assert beside("https://h/a.whl", "") == "https://h/a.whl"


def test_what_other_tools_wrote_is_refused_before_anything_is_built(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(f"{_wheel(house)}.json")
    record = Record.from_json(place.read_bytes(), "r")
    before = {**packaging_writers(), "cyclonedx-python-lib": "1.0", "zlib": "1.2.13"}
    older = dataclasses.replace(record, front=dataclasses.replace(record.front, tools=before))
    place.write_bytes(older.to_json())
    assert run_command(["reproduce", f"wheel={_wheel(house)}", "engine=host"]) == 2
    said = capsys.readouterr().err
    assert "was written by other tools than those here" in said
    assert "zlib: 1.2.13 then, not used now" in said
    assert "deflate: not used then, 0.9.0 now" in said
    assert f"cyclonedx-python-lib: 1.0 then, {last_writers()['cyclonedx-python-lib']} now" in said
    assert older.made_by is not None
    assert f"git switch --detach {older.made_by.commit}" in said


def test_the_tools_of_an_image_are_those_that_count_in_one() -> None:
    here = {**last_writers(), "setuptools": "1", "auditwheel": "2"}
    record = record_of_the_zoo()
    record = dataclasses.replace(record, front=dataclasses.replace(record.front, tools=here))
    assert record.image is not None
    assert rebuild.other_writers(record, {"setuptools": "1", "auditwheel": "2", "build": "3"}) == []
    assert rebuild.other_writers(record, {"setuptools": "1", "auditwheel": "3"}) == ["auditwheel: 2 then, 3 now"]
    assert rebuild.other_writers(dataclasses.replace(record, image=None), {}) != []


def test_what_writes_a_tarball_counts_where_there_is_one() -> None:
    front = Front(kind=FrontKind.CPP, tarball=True)
    record = record_of_the_zoo()
    record = dataclasses.replace(
        record,
        image=None,
        tarball=FileFacts(file="a.tar.zst", sha256="0" * 64, size=1),
        front=dataclasses.replace(record.front, kind=front.kind, tools=own_writers(front)),
    )
    assert rebuild.other_writers(record, {}) == []
    older = dataclasses.replace(record.front, tools={**own_writers(front), "zstandard": "0.1"})
    (said,) = rebuild.other_writers(dataclasses.replace(record, front=older), {})
    assert said.startswith("zstandard: 0.1 then, ")


def test_a_wheel_of_another_record_is_refused(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _wheel(house).open("ab") as stream:
        stream.write(b"x")
    assert run_command(["reproduce", f"wheel={_wheel(house)}"]) == 2
    assert "is the record of another file" in capsys.readouterr().err


def test_a_result_made_elsewhere_joins_the_record_once(house: Path, tmp_path: Path) -> None:
    record = Record.from_json(Path(f"{_wheel(house)}.json").read_bytes(), "r")
    entry = {"created": "2026-11-22T07:00:00Z", "machine": "x86_64, 16 cores", "engine": "podman", "by": "ann"}
    result = tmp_path / "reproduced.json"
    result.write_text(json.dumps({"sha256": record.wheel.sha256, "reproduction": entry}))
    for _ in range(2):
        assert run_command(["record", str(result)]) == 0
    joined = Record.from_json(Path(f"{_wheel(house)}.json").read_bytes(), "r")
    assert joined.reproduced == (REPRODUCTION,)


@pytest.mark.parametrize("entry", [{}, [], 7, {"created": 1, "machine": "m", "engine": "e", "by": None}])
def test_what_is_no_result_is_refused(house: Path, tmp_path: Path, entry: object) -> None:
    digest = Record.from_json(Path(f"{_wheel(house)}.json").read_bytes(), "r").wheel.sha256
    result = tmp_path / "reproduced.json"
    result.write_text(json.dumps({"sha256": digest, "reproduction": entry}))
    assert run_command(["record", str(result)]) == 2


def _changed(path: Path, member: str, data: bytes, folder: Path) -> Path:
    wheel = read_wheel(path)
    final = folder / path.name
    write_wheel(final, dataclasses.replace(wheel, files={**wheel.files, member: data}), epoch=zoo.EPOCH)
    return final


@pytest.mark.parametrize(
    ("member", "first"),
    [
        (zoo.LIBRARY, f"front: {zoo.LIBRARY} differs"),
        (f"{zoo.INFO}/METADATA", f"front: {zoo.INFO}/METADATA differs"),
        (proof_zoo.SBOM_MEMBER, f"repair: {zoo.INFO}/RECORD differs"),
    ],
)
def test_the_member_that_differs_is_named_with_its_maker(house: Path, tmp_path: Path, member: str, first: str) -> None:
    other = _changed(_wheel(house), member, b"other", tmp_path / "other")
    assert rebuild.different_members(_wheel(house), other)[0] == first


def test_equal_members_in_another_archive_are_repairs(house: Path, tmp_path: Path) -> None:
    final = tmp_path / "later" / _wheel(house).name
    write_wheel(final, read_wheel(_wheel(house)), epoch=zoo.EPOCH + 100)
    assert rebuild.different_members(_wheel(house), final) == ["repair: every member is the same, the archives are not"]


def test_other_bytes_are_refused_by_the_first_stage_and_kept(house: Path, tmp_path: Path) -> None:
    path = _wheel(house)
    record = Record.from_json(Path(f"{path}.json").read_bytes(), "r")
    other = _changed(path, zoo.LIBRARY, b"\x7fELF other", tmp_path / "other")
    assert record.pack is not None
    unit = dataclasses.replace(record.pack.units[0], sha256="ff" * 32)
    pack = dataclasses.replace(record.pack, units=(unit, *record.pack.units[1:]))
    facts = dataclasses.replace(record.wheel, sha256="ee" * 32)
    call = _call(tmp_path)
    before = rebuild.Rebuilt(path=path, record=record)
    after = rebuild.Rebuilt(path=other, record=dataclasses.replace(record, pack=pack, wheel=facts))
    _compare(call, before, before)
    with pytest.raises(GateError) as caught:
        _compare(call, before, after)
    said = f"{path.name} was not reproduced: unit {unit.path}: the object was {'08' * 32}, and is {'ff' * 32}"
    assert caught.value.sentence == said
    kept = tmp_path / "cache" / "refused" / path.name
    assert caught.value.detail[-1] == f"what came out now is kept: {kept}"
    assert kept.read_bytes() == other.read_bytes()
    # what lies in a folder that goes is kept as well
    passing = call.workspace.work / path.name
    write_atomic(passing, path.read_bytes())
    with pytest.raises(GateError):
        _compare(call, rebuild.Rebuilt(path=passing, record=record), after)
    assert (kept.parent / "before" / path.name).read_bytes() == path.read_bytes()
    assert any("diffoscope" in line for line in caught.value.detail)


def test_another_tarball_beside_the_same_wheel_is_not_reproduced(house: Path, tmp_path: Path) -> None:
    path = _wheel(house)
    record = Record.from_json(Path(f"{path}.json").read_bytes(), "r")
    one, other = (FileFacts(file="a.tar.zst", sha256=digit * 64, size=1) for digit in "ab")
    before = rebuild.Rebuilt(path=path, record=dataclasses.replace(record, tarball=one))
    after = rebuild.Rebuilt(path=path, record=dataclasses.replace(record, tarball=other))
    _compare(_call(tmp_path), before, before)
    with pytest.raises(GateError) as caught:
        _compare(_call(tmp_path), before, after)
    assert caught.value.detail[0] == f"repair: the tarball was {'a' * 64}, and is {'b' * 64}"


def _call(folder: Path) -> Call:
    return Call(
        words=(),
        as_json=False,
        workspace=dataclasses.replace(zoo.workspace(folder), environ={"PATH": ""}),  # no diffoscope: it takes seconds
        python=PythonVersion(3, 11),
        platform="linux_x86_64",
        now=lambda: "2026-11-22T07:00:00Z",
        answer=lambda _: None,
    )


def test_a_failed_build_keeps_its_kind_of_error() -> None:
    assert rebuild._failure(6) is CompileError
    assert rebuild._failure(139) is ToolError


def test_a_copied_checkout_has_what_a_build_reads_and_no_other_rights(project_root: Path, tmp_path: Path) -> None:
    copy = rebuild.copy_project(project_root, tmp_path / "copy", private=True)
    assert (copy / "recipes" / "fa3-fwd" / "recipe.yaml").is_file()
    assert (copy / "LICENSE").read_bytes() == (project_root / "LICENSE").read_bytes()
    assert not (copy / "flash-attention" / "src").exists()
    assert (copy / "recipes" / "fa3-cpp" / "src" / "api.cpp").is_file()  # a front's own, and not fetched
    assert all(path.stat().st_mode & 0o077 == 0 for path in copy.rglob("*"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 2", ["diffoscope ended with status 2"]),
        ("exit 0", ["diffoscope ended with status 0"]),
        ("echo two lines >$2; exit 1", ["two lines"]),
    ],
)
def test_a_report_of_an_earlier_comparison_is_not_taken_for_this_ones(
    tmp_path: Path, body: str, said: list[str]
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "diffoscope").write_text(f"#!/bin/sh\n{body}\n")
    (programs / "diffoscope").chmod(0o755)
    after = tmp_path / "after.whl"
    report = tmp_path / "after.whl.diffoscope.txt"
    report.write_text("an earlier one\n")
    workspace = dataclasses.replace(zoo.workspace(tmp_path), environ={"PATH": f"{programs}:/usr/bin:/bin"})
    lines = rebuild.diffoscope(tmp_path / "before.whl", after, workspace)
    assert lines == (said if body.startswith("exit") else [*said, f"the whole report: {report}"])


def test_without_diffoscope_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    workspace = dataclasses.replace(zoo.workspace(tmp_path), environ={"PATH": str(tmp_path)})
    (line,) = rebuild.diffoscope(tmp_path / "a", tmp_path / "b", workspace)
    assert line.endswith("apt-get install diffoscope-minimal")
