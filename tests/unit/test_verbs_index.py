"""The verb publish: its words, what it says, what it refuses, and that what is refused is nowhere to be seen."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.publish_zoo import BOUND, STABLE, assert_current, catalog_of, members, record_of, shelve, write_record
from tests.unit.record_zoo import TOOLKIT
from tests.unit.wheel_zoo import TAG, metadata

from hopperforge.cli import run_command
from hopperforge.errors import InputError
from hopperforge.index.whole import index_files
from hopperforge.model.record import Record
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion
from hopperforge.stages.wheel_archive import make_record
from hopperforge.store.targets import FolderTarget
from hopperforge.verbs_index import split_promotion

NAME = f"fa3_fwd-{STABLE}-{TAG}.whl"
INFO = f"fa3_fwd-{STABLE}.dist-info"


@pytest.fixture
def house(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty wheelhouse, and the command line in front of it."""
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOPPERFORGE_WHEELHOUSE", str(tmp_path / "wheelhouse"))
    monkeypatch.delenv("HOPPERFORGE_STORE", raising=False)
    return tmp_path / "wheelhouse"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def publish(*words: object) -> int:
    return run_command(["publish", *map(str, words)])


def pages(index: Path) -> int:
    """How many pages follow from the catalog."""
    return len(index_files(catalog_of(FolderTarget(index))))


def files(index: Path) -> list[str]:
    return [entry.file for entry in catalog_of(FolderTarget(index)).packages]


def test_what_is_proven_is_published_and_the_rest_is_said(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house)
    unproven = shelve(house, BOUND, gpu=None)
    assert publish(f"to={index}") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"left out: {unproven.name}: no smoke tests on a GPU (nox -s smoke)"
    assert said[1].startswith(f"{NAME}: published: 0.00 MB, sha256 ")
    assert said[2] == f"{pages(index)} of {pages(index)} pages written"
    assert files(index) == [NAME]
    assert publish(f"to={index}") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{NAME}: there already, the same bytes: skipped",
        f"0 of {pages(index)} pages written",
    ]
    assert_current(FolderTarget(index))


def test_a_package_that_is_named_must_be_proven(house: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelve(house)
    unproven = shelve(house, BOUND, proven=False)
    assert publish(f"to={index}", f"wheel={NAME},{unproven}") == 9
    said = capsys.readouterr().err
    assert f"{unproven.name}: no gate shows an import beside a torch it serves" in said
    assert f"{unproven.name}: no smoke tests on a GPU" in said
    assert not index.exists()
    assert publish(f"to={index}", f"wheel={NAME}") == 0
    assert publish(f"to={index}", f"wheel={unproven}", "--allow-unproven") == 0
    assert {entry.file: entry.unproven for entry in catalog_of(FolderTarget(index)).packages} == {
        NAME: False,
        unproven.name: True,
    }


def test_a_wheelhouse_of_nothing_proven_is_refused_with_every_reason(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, proven=False)
    assert publish(f"to={index}") == 9
    assert f"{NAME}: no smoke tests on a GPU" in capsys.readouterr().err
    assert not index.exists()


def other_name(path: Path) -> Path:
    return write_again(path, {f"{INFO}/METADATA": metadata(STABLE, name="fa3-bwd")})


def other_version(path: Path) -> Path:
    return write_again(path, {f"{INFO}/METADATA": metadata("3.0.1+cu130")})


def no_metadata(path: Path) -> Path:
    return write_again(path, {f"{INFO}/METADATA": b""})


def two_dots_inside(path: Path) -> Path:
    return write_again(path, {"../evil.py": b"evil\n"})


def write_again(path: Path, changes: dict[str, bytes]) -> Path:
    content = {name: data for name, data in (members(STABLE) | changes).items() if not name.endswith("RECORD")}
    made = {**content, f"{INFO}/RECORD": make_record(content, f"{INFO}/RECORD")}
    return shelve(path.parent, files=made)


def untrue_record(path: Path) -> Path:
    made = {**members(STABLE), "fa3_fwd/__init__.py": b"changed\n"}
    return shelve(path.parent, files=made)


def garbage(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4000)
    write_record(path, record_of(path))
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    write_record(path, record_of(path))
    return path


def claiming(**changes: Any) -> Callable[[Path], Path]:
    def change(path: Path) -> Path:
        write_record(path, replace(record_of(path), **changes))
        return path

    return change


def other_size(path: Path) -> Path:
    made = record_of(path)
    write_record(path, replace(made, wheel=replace(made.wheel, size=7)))
    return path


def named_outside(path: Path) -> Path:
    made = record_of(path)
    outside = path.parent.parent / path.name
    path.rename(outside)
    write_record(path, replace(made, wheel=replace(made.wheel, file=f"../{path.name}")))
    return outside


def named_otherwise(path: Path) -> Path:
    renamed = path.rename(path.with_name(f"fa3_fwd-3.0.1+cu130-{TAG}.whl"))
    write_record(renamed, record_of(renamed))
    return renamed


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_name, "METADATA says name fa3-bwd, expected fa3-fwd"),
        (other_version, "METADATA says version 3.0.1+cu130, expected 3.0.0+cu130"),
        (no_metadata, "METADATA says name nothing"),
        (untrue_record, "fa3_fwd/__init__.py does not match its line in RECORD"),
        (two_dots_inside, 'it holds "../evil.py", which would be unpacked elsewhere'),
        (garbage, "cannot be read as a wheel"),
        (cut_off, "cannot be read as a wheel"),
        (other_size, "its record says 7"),
        (named_outside, f'its record says file "../{NAME}", which is no plain name of a wheel'),
        (named_otherwise, "file name says version 3.0.1+cu130, expected 3.0.0+cu130"),
        (claiming(name="../evil"), 'its record says "../evil", which is no name of a project'),
        (claiming(name="fa3-jax"), "METADATA says name fa3-fwd, expected fa3-jax"),
        (claiming(profile="../../evil"), "which is no name of a folder of an index"),
        (claiming(profile="torch2.9"), "which is no name of a folder of an index"),
        (claiming(profile="simple"), "which is no name of a folder of an index"),
        (claiming(recipe="unheard-of"), "which is not in this checkout"),
        (claiming(version="not a version"), "expected not a version"),
        (
            claiming(toolkit=replace(TOOLKIT, version=ToolkitVersion.parse("99.9"))),
            "its record says CUDA 99.9",
        ),
        (claiming(kernels=Kernels.INLINE), "upstream's own build"),
    ],
)
def test_what_is_not_what_it_says_is_refused_whatever_is_allowed(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], Path], says: str
) -> None:
    shelve(house, BOUND)
    assert publish(f"to={index}") == 0
    before = {path: path.read_bytes() for path in index.rglob("*") if path.is_file()}
    damage(shelve(house))
    capsys.readouterr()
    assert publish(f"to={index}", "--allow-unproven") == 9
    said = capsys.readouterr().err
    assert "error: nothing was published, for not every package may be\n" in said
    assert says in said
    assert {path: path.read_bytes() for path in index.rglob("*") if path.is_file()} == before


def test_a_dry_run_says_what_would_be_and_writes_nothing(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelve(house, proven=False)
    assert publish(f"to={index}", "--dry-run", "--allow-unproven") == 0
    said = capsys.readouterr().out
    assert f"{NAME}: would be published" in said
    assert said.endswith(" pages would be written\n")
    assert not index.exists()
    assert publish(f"to={index}", "--allow-unproven") == 0
    write_record(path, record_of(path))
    capsys.readouterr()
    assert publish(f"to={index}", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "would be added to its record: gate import with torch 2.11 in python 3.11, the smoke tests on a GPU" in said
    assert catalog_of(FolderTarget(index)).packages[0].unproven


def test_an_index_is_repaired_with_an_empty_wheelhouse(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelve(house)
    assert publish(f"to={index}") == 0
    (index / "all" / "simple" / "index.html").unlink()
    path.unlink()
    Path(f"{path}.json").unlink()
    capsys.readouterr()
    assert publish(f"to={index}") == 0
    assert capsys.readouterr().out == f"1 of {pages(index)} pages written\n"


def test_nothing_to_publish_to_nowhere_is_an_error(
    house: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not house.exists()
    assert publish(f"to={index}") == 2
    assert "there is nothing to publish" in capsys.readouterr().err
    assert not index.exists()


@pytest.mark.usefixtures("house")
def test_a_folder_to_be_made_needs_the_one_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(f"to={tmp_path}/missing/index") == 11
    assert f"hint: mkdir -p {tmp_path}/missing/index" in capsys.readouterr().err


def test_a_place_may_be_relative(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelve(house)
    project = Path.cwd()
    for name in ("matrix.yaml", "recipes", "flash-attention", "image"):
        (tmp_path / name).symlink_to(project / name)
    monkeypatch.chdir(tmp_path)
    assert publish("to=index", f"wheel=wheelhouse/{NAME}") == 0
    assert files(tmp_path / "index") == [NAME]


def test_yank_and_unyank(house: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelve(house)
    assert publish(f"to={index}") == 0
    assert publish(f"to={index}", f"yank={NAME}", "reason=wrong results, see #12") == 0
    assert f"{NAME}: yanked: wrong results, see #12" in capsys.readouterr().out
    page = json.loads((index / "all/simple/fa3-fwd/index.json").read_bytes())
    assert page["files"][0]["yanked"] == "wrong results, see #12"
    assert publish(f"to={index}", f"unyank={NAME}") == 0
    assert f"{NAME}: stands again" in capsys.readouterr().out
    page = json.loads((index / "all/simple/fa3-fwd/index.json").read_bytes())
    assert "yanked" not in page["files"][0]
    assert publish(f"to={index}", "yank=other.whl", "reason=why") == 2
    assert "has no file other.whl" in capsys.readouterr().err


def test_promotion_copies_what_the_other_lacks(
    house: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    production = tmp_path / "production"
    yanked = shelve(house, BOUND)
    assert publish(f"to={index}") == 0
    assert publish(f"to={index}", f"yank={yanked.name}", "reason=slow") == 0
    shelve(house)
    assert publish(f"to={index}") == 0
    capsys.readouterr()
    assert publish(f"promote={index}:{production}", "--dry-run") == 0
    assert not production.exists()
    assert f"{NAME}: would be published" in capsys.readouterr().out
    assert publish(f"promote={index}:{production}") == 0
    said = capsys.readouterr().out
    assert f"{yanked.name}: left out: yanked there: slow" in said
    assert files(production) == [NAME]
    assert publish(f"from={index}", f"to={production}") == 0
    assert "published:" not in capsys.readouterr().out
    assert publish(f"from={index}", f"to={production}", f"wheel={yanked.name}") == 0
    assert files(production) == [yanked.name, NAME]
    assert [entry.yanked for entry in catalog_of(FolderTarget(production)).packages] == [None, None]
    assert publish(f"from={index}", f"to={production}", "wheel=nosuch.whl") == 2


def test_promotion_refuses_what_is_unproven_and_other_bytes(
    house: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    production = tmp_path / "production"
    path = shelve(house, proven=False)
    assert publish(f"to={index}", "--allow-unproven") == 0
    assert publish(f"promote={index}:{production}") == 9
    assert f"{NAME}: no smoke tests on a GPU" in capsys.readouterr().err
    assert not production.exists()
    assert publish(f"promote={index}:{production}", "--allow-unproven") == 0
    first = record_of(path).wheel.sha256
    shelve(house, payload=b"other = 1\n")
    other = tmp_path / "other"
    assert publish(f"to={other}") == 0
    capsys.readouterr()
    assert publish(f"promote={other}:{production}") == 9
    said = capsys.readouterr().err
    assert f"{NAME}: sha256 {first} there, {record_of(path).wheel.sha256} here" in said


def test_promotion_carries_a_proof_on(house: Path, index: Path, tmp_path: Path) -> None:
    production = tmp_path / "production"
    path = shelve(house, proven=False)
    assert publish(f"to={index}", "--allow-unproven") == 0
    assert publish(f"promote={index}:{production}", "--allow-unproven") == 0
    write_record(path, record_of(path))
    assert publish(f"to={index}") == 0
    assert publish(f"promote={index}:{production}") == 0
    (entry,) = catalog_of(FolderTarget(production)).packages
    assert not entry.unproven
    carried = Record.from_json((production / f"{entry.path}.json").read_bytes(), "it")
    assert carried.gpu is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "publish where? the word to= is missing"),
        (["to=ftp://example.org/a"], "to=: "),
        (["to=s3://user:secret@bucket/a"], "a store is named without user and password"),
        (["to=/a", "promote=/b:/c"], "promote= names both indexes"),
        (["promote=/b"], "is not two places with one colon between them"),
        (["to=/a", "yank=x.whl"], "yank= and reason= go together"),
        (["to=/a", "reason=why"], "yank= and reason= go together"),
        (["to=/a", "yank=x.whl", "reason=why", "unyank=y.whl"], "do not go together"),
        (["to=/a", "yank=x.whl", "reason=why", "wheel=y.whl"], "do not go together"),
        (["to=/a", "from=/b", "unyank=y.whl"], "do not go together"),
        (["to=/a", "wheel="], "wheel= lacks a value"),
        (["to=/a", "whel=a.whl"], "wheel"),
        (["to=/tmp/a", "wheel=nosuch.whl"], "nosuch.whl: there is no such file"),
        (["to=/tmp/a", "wheel=matrix.yaml"], "matrix.yaml: no record there names its bytes"),
    ],
)
@pytest.mark.usefixtures("house")
def test_words_that_make_no_sense_are_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(*words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "secret" not in said


@pytest.mark.parametrize("flag", ["--dry-run", "--allow-unproven"])
@pytest.mark.usefixtures("house")
def test_other_verbs_do_not_take_its_flags(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["fetch", flag]) == 2
    assert f"fetch has no {flag}; publish" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/srv/staging:/srv/prod", ("/srv/staging", "/srv/prod")),
        ("staging:prod", ("staging", "prod")),
        ("s3://a/x:s3://b/y", ("s3://a/x", "s3://b/y")),
        ("/srv/staging:s3://b/y", ("/srv/staging", "s3://b/y")),
        ("gs://a:prod", ("gs://a", "prod")),
    ],
)
def test_a_promotion_is_two_places(text: str, parts: tuple[str, str]) -> None:
    assert split_promotion(text) == parts


@pytest.mark.parametrize("text", ["/a", "/a:", ":/b", ":", "/a:b:c", "s3://a", "s3://a:", "/srv/a:b:s3://c"])
def test_what_is_not_two_places_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not two places"):
        split_promotion(text)
