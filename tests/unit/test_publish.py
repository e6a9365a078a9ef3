"""Publishing to a folder: what is written, skipped, joined, refused and repaired."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.publish_zoo import (
    BOUND,
    MOMENT,
    STABLE,
    assert_current,
    assert_sound,
    catalog_of,
    fetched,
    gpu_proof,
    members,
    packages,
    parcels,
    record_of,
    shelve,
    signature_over,
    write_record,
)
from tests.unit.record_zoo import REPRODUCTION, record

from hopperforge.config.project import Project
from hopperforge.errors import InputError, PublishError, StorageError
from hopperforge.index.joining import join_records, what_was_joined
from hopperforge.model.record import Record
from hopperforge.model.wheel import GateResult
from hopperforge.stages.parcels import from_index
from hopperforge.stages.publish import Parcel, publish, set_yanked
from hopperforge.stages.wheel_archive import make_record
from hopperforge.store.targets import FolderTarget, Mark, Rehearsal, checked_name, try_again

LATER = "2031-01-01T00:00:00+00:00"


@pytest.fixture
def target(tmp_path: Path) -> FolderTarget:
    return FolderTarget(tmp_path / "index")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A wheelhouse of a stable build and one for torch 2.6."""
    shelve(tmp_path / "wheelhouse", STABLE)
    shelve(tmp_path / "wheelhouse", BOUND)
    return tmp_path / "wheelhouse"


def written(target: FolderTarget) -> dict[str, bytes]:
    root = Path(target.place)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_packages_are_in_the_pool_with_metadata_and_record_and_on_their_pages(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    done = publish(target, parcels(house, facts))
    assert [(found.file, found.new) for found in done.outcomes] == [
        (path.name, True) for path in sorted(house.glob("*.whl"))
    ]
    assert done.written == done.pages > 8
    for path in house.glob("*.whl"):
        assert fetched(target, f"pool/fa3-fwd/{path.name}") == path.read_bytes()
        assert fetched(target, f"pool/fa3-fwd/{path.name}.json") == Path(f"{path}.json").read_bytes()
        assert fetched(target, f"pool/fa3-fwd/{path.name}.metadata").startswith(b"Metadata-Version")
    assert {entry.uploaded for entry in catalog_of(target).packages} == {MOMENT}
    assert_sound(target)
    assert_current(target)


def test_publishing_again_writes_nothing(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    before = {path: path.stat().st_ino for path in Path(target.place).rglob("*")}
    done = publish(target, parcels(house, facts, LATER))
    assert [(found.new, found.added) for found in done.outcomes] == [(False, ())] * 2
    assert done.written == 0
    assert {path: path.stat().st_ino for path in Path(target.place).rglob("*")} == before


def test_the_same_wheelhouse_gives_the_same_bytes(
    house: Path, tmp_path: Path, target: FolderTarget, facts: Project
) -> None:
    publish(target, parcels(house, facts))
    other = FolderTarget(tmp_path / "other")
    for parcel in reversed(parcels(house, facts)):
        publish(other, [parcel])
    assert written(other) == written(target)


def test_only_pages_that_change_are_written(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    before = {path: path.stat().st_ino for path in Path(target.place).rglob("*.html")}
    shelve(house, "3.0.0+cu124torch2.7")
    publish(target, parcels(house, facts))
    after = {path: path.stat().st_ino for path in Path(target.place).rglob("*.html")}
    changed = {
        path.relative_to(target.place).as_posix() for path, number in after.items() if before.get(path) != number
    }
    assert {name for name in changed if "/simple/" in name} == {
        "all/simple/fa3-fwd/index.html",
        "cu124/torch2.7/simple/index.html",
        "cu124/torch2.7/simple/fa3-fwd/index.html",
    }


@pytest.mark.parametrize("lost", ["cu130/simple/fa3-fwd/index.html", "all/simple/index.json"])
@pytest.mark.parametrize("damage", [None, b"old"])
def test_pages_that_lag_are_repaired_though_there_is_nothing_to_publish(
    house: Path, target: FolderTarget, facts: Project, lost: str, damage: bytes | None
) -> None:
    publish(target, parcels(house, facts))
    path = Path(target.place) / lost
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert publish(target, []).written == 1
    assert_current(target)


def test_a_file_lost_from_the_pool_is_put_back(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    for lost in list((Path(target.place) / "pool").rglob("*+cu130*")):
        lost.unlink()
    publish(target, parcels(house, facts))
    assert_sound(target)


def test_other_bytes_under_a_published_name_are_refused_with_both_hashes(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    publish(target, parcels(house, facts))
    before = written(target)
    first = {entry.file: entry.sha256 for entry in catalog_of(target).packages}
    for version in (STABLE, BOUND):
        shelve(house, version, payload=b"other = 1\n")
    shelve(house, "3.1.0+cu130")
    with pytest.raises(PublishError, match="names are taken") as caught:
        publish(target, parcels(house, facts))
    for package in packages(house):
        if package.path.name in first:
            digest = package.record.wheel.sha256
            assert f"{package.path.name}: sha256 {first[package.path.name]} there, {digest} here" in caught.value.detail
    assert written(target) == before
    assert caught.value.exit_code == 9


def test_what_a_killed_publisher_left_in_the_pool_is_taken_if_it_is_the_same(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    (parcel, _) = parcels(house, facts)
    with target.exclusive():
        assert target.create(parcel.path, parcel.load())
    publish(target, [parcel])
    assert_sound(target)


@pytest.mark.parametrize("suffix", ["", ".metadata"])
def test_other_bytes_left_in_the_pool_are_refused_with_both_hashes(
    house: Path, target: FolderTarget, facts: Project, suffix: str
) -> None:
    (parcel, _) = parcels(house, facts)
    with target.exclusive():
        assert target.create(parcel.path + suffix, b"truncated")
    with pytest.raises(PublishError) as caught:
        publish(target, [parcel])
    (detail,) = caught.value.detail
    assert detail.startswith(f"{parcel.path}{suffix}: sha256 ")
    assert catalog_of(target).packages == ()
    assert not (Path(target.place) / "all").exists()


def test_a_truncated_file_in_the_pool_is_said(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    path = Path(target.place) / parcels(house, facts)[0].path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PublishError) as caught:
        publish(target, parcels(house, facts))
    assert parcels(house, facts)[0].record.wheel.sha256 in caught.value.detail[0]


def test_a_proof_joined_later_reaches_record_and_catalog(tmp_path: Path, target: FolderTarget, facts: Project) -> None:
    path = shelve(tmp_path / "house", proven=False)
    publish(target, parcels(tmp_path / "house", facts))
    (before,) = catalog_of(target).packages
    assert (before.unproven, before.gpu) == (True, None)
    set_yanked(target, path.name, "not proven yet")
    write_record(path, record_of(path))
    done = publish(target, parcels(tmp_path / "house", facts, LATER))
    assert done.outcomes[0].added == ("gate import with torch 2.11 in python 3.11", "the smoke tests on a GPU")
    (after,) = catalog_of(target).packages
    assert (after.unproven, after.uploaded, after.yanked) == (False, MOMENT, "not proven yet")
    assert after.gpu is not None
    published = Record.from_json(fetched(target, f"{after.path}.json"), "it")
    assert published.gpu == gpu_proof(after.sha256)
    assert_current(target)


def test_a_record_that_was_written_and_not_entered_is_entered_next_time(
    tmp_path: Path, target: FolderTarget, facts: Project
) -> None:
    path = shelve(tmp_path / "house", proven=False)
    publish(target, parcels(tmp_path / "house", facts))
    (entry,) = catalog_of(target).packages
    (Path(target.place) / f"{entry.path}.json").write_bytes(record_of(path).to_json())  # killed here
    done = publish(target, parcels(tmp_path / "house", facts))
    assert done.outcomes[0].added == ()
    assert not catalog_of(target).packages[0].unproven


def test_a_published_record_of_other_bytes_is_refused(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    entry, other = catalog_of(target).packages
    fake = fetched(target, f"{other.path}.json")
    (Path(target.place) / f"{entry.path}.json").write_bytes(fake)
    with pytest.raises(PublishError, match="is the record of other bytes"):
        publish(target, parcels(house, facts))


@pytest.mark.parametrize("data", [b"{", b'{"format": 9, "packages": []}', b"\xff"])
def test_a_catalog_that_cannot_be_read_is_left_alone(
    house: Path, target: FolderTarget, facts: Project, data: bytes
) -> None:
    catalog = Path(target.place) / "packages.json"
    catalog.parent.mkdir()
    catalog.write_bytes(data)
    with pytest.raises(InputError, match="is not a catalog this hopperforge can read"):
        publish(target, parcels(house, facts))
    assert set(written(target)) == {"packages.json"}
    assert catalog.read_bytes() == data


def test_a_signature_is_beside_its_wheel_and_may_be_made_anew(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    (path,) = house.glob("*cu130*.whl")
    signature = path.with_name(path.name + ".dsse.json")
    signature.write_bytes(signature_over(path))
    publish(target, parcels(house, facts))
    bound, signed = catalog_of(target).packages
    assert (bound.attested, signed.attested) == (False, True)
    assert fetched(target, f"{signed.path}.dsse.json") == signature.read_bytes()
    signature.write_bytes(signature_over(path))
    publish(target, parcels(house, facts))
    assert fetched(target, f"{signed.path}.dsse.json") == signature.read_bytes()
    signature.unlink()
    publish(target, parcels(house, facts))
    assert catalog_of(target).packages[1].attested


def test_a_signature_that_is_not_over_the_record_in_the_pool_is_neither_put_there_nor_shown(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    (path,) = house.glob("*cu130*.whl")
    signature = path.with_name(path.name + ".dsse.json")
    signature.write_bytes(signature_over(path))
    publish(target, parcels(house, facts))
    signature.unlink()
    # whoever joins more to the record takes the proof from the signature
    later = replace(REPRODUCTION, by="eve")
    before = Record.from_json(path.with_name(path.name + ".json").read_bytes(), "record")
    write_record(path, before.with_reproduction(later))
    publish(target, parcels(house, facts))
    grown = catalog_of(target).packages[1]
    assert (grown.attested, grown.reproduced) == (False, (str(REPRODUCTION), str(later)))
    # and one over what the record was before is refused
    write_record(path, before)
    signature.write_bytes(signature_over(path))
    with pytest.raises(PublishError, match="is not over the record that") as caught:
        publish(target, parcels(house, facts))
    assert caught.value.hint is not None
    assert "sign it, and publish again" in caught.value.hint


def test_a_bill_of_materials_in_a_wheel_is_noted(tmp_path: Path, target: FolderTarget, facts: Project) -> None:
    info = f"fa3_fwd-{STABLE}.dist-info"
    content = {name: data for name, data in members(STABLE).items() if not name.endswith("RECORD")}
    content[f"{info}/sboms/fa3_fwd.cdx.json"] = b"{}"
    shelve(tmp_path / "house", files={**content, f"{info}/RECORD": make_record(content, f"{info}/RECORD")})
    publish(target, parcels(tmp_path / "house", facts))
    assert catalog_of(target).packages[0].sbom


def test_yank_and_unyank_change_the_pages_of_that_file(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    before = written(target)
    name = catalog_of(target).packages[-1].file
    done = set_yanked(target, name, 'gives "wrong" results')
    assert done.written > 0
    assert b'data-yanked="gives &quot;wrong&quot; results"' in fetched(target, "cu130/simple/fa3-fwd/index.html")
    assert_current(target)
    publish(target, parcels(house, facts))
    assert catalog_of(target).packages[-1].yanked == 'gives "wrong" results'
    set_yanked(target, name, None)
    assert written(target) == before


def test_yanking_what_is_not_there_names_what_is(house: Path, target: FolderTarget, facts: Project) -> None:
    publish(target, parcels(house, facts))
    with pytest.raises(InputError, match=r"has no file nosuch\.whl") as caught:
        set_yanked(target, "nosuch.whl", "why")
    assert catalog_of(target).packages[0].file in caught.value.detail


def test_a_rehearsal_says_the_same_and_writes_nothing(house: Path, target: FolderTarget, facts: Project) -> None:
    rehearsed = publish(Rehearsal(target), parcels(house, facts))
    assert not Path(target.place).exists()
    assert rehearsed == publish(target, parcels(house, facts))
    before = written(target)
    name = catalog_of(target).packages[0].file
    rehearsed = set_yanked(Rehearsal(target), name, "why")
    assert written(target) == before
    assert rehearsed == set_yanked(target, name, "why")


def test_a_wheel_that_changes_after_it_was_checked_is_not_published(
    house: Path, target: FolderTarget, facts: Project
) -> None:
    checked = parcels(house, facts)
    path = next(iter(sorted(house.glob("*.whl"))))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PublishError, match="is not the file its record names"):
        publish(target, checked)
    assert catalog_of(target).packages == ()


def test_publishers_whose_clocks_are_wrong_harm_nothing(
    house: Path, tmp_path: Path, target: FolderTarget, facts: Project
) -> None:
    bound, stable = parcels(house, facts, "1970-01-01T00:00:00+00:00")
    late = parcels(house, facts, "2099-12-31T23:59:59+14:00")[1]
    publish(target, [late])
    publish(target, [bound])
    assert publish(target, [stable]).written == 0
    ordinary = FolderTarget(tmp_path / "ordinary")
    publish(ordinary, parcels(house, facts))
    for shelf in ("all", "cu130", "cu124/torch2.6"):
        name = f"{shelf}/simple/fa3-fwd/index.html"
        assert fetched(target, name) == fetched(ordinary, name)
    page = json.loads(fetched(target, "all/simple/fa3-fwd/index.json"))
    assert [found["upload-time"] for found in page["files"]] == ["1970-01-01T00:00:00Z", "2099-12-31T09:59:59Z"]


def promoted(source: FolderTarget) -> list[Parcel]:
    candidates = [from_index(source, entry, LATER) for entry in catalog_of(source).packages]
    assert [found.wrong for found in candidates] == [()] * len(candidates)
    return [found.parcel for found in candidates if found.parcel is not None]


def test_promoted_packages_are_the_same_and_came_later(
    house: Path, target: FolderTarget, tmp_path: Path, facts: Project
) -> None:
    (path,) = house.glob("*cu130*.whl")
    path.with_name(path.name + ".dsse.json").write_bytes(signature_over(path))
    publish(target, parcels(house, facts))
    production = FolderTarget(tmp_path / "production")
    publish(production, promoted(target))
    ours, theirs = catalog_of(production).packages, catalog_of(target).packages
    assert ours == tuple(replace(entry, uploaded=LATER) for entry in theirs)
    assert {name for name in written(production) if name.startswith("pool/")} == {
        name for name in written(target) if name.startswith("pool/")
    }
    assert_sound(production)
    assert_current(production)


def damage_wheel(entry_path: Path) -> None:
    entry_path.write_bytes(entry_path.read_bytes()[:-1] + b"x")


def damage_metadata(entry_path: Path) -> None:
    entry_path.with_name(entry_path.name + ".metadata").write_bytes(b"Name: other\n")


def damage_record(entry_path: Path) -> None:
    path = entry_path.with_name(entry_path.name + ".json")
    path.write_bytes(path.read_bytes().replace(b'"3.0.0+', b'"3.0.1+'))


def lose_metadata(entry_path: Path) -> None:
    entry_path.with_name(entry_path.name + ".metadata").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_wheel, "is not the file its record names"),
        (damage_metadata, "its metadata has sha256"),
        (damage_record, "its record says 3.0.1+cu130, the catalog 3.0.0+cu130"),
        (lose_metadata, ".metadata is missing"),
    ],
)
def test_what_is_damaged_is_not_promoted(
    tmp_path: Path, target: FolderTarget, facts: Project, damage: Callable[[Path], None], says: str
) -> None:
    shelve(tmp_path / "house")
    publish(target, parcels(tmp_path / "house", facts))
    (entry,) = catalog_of(target).packages
    damage(Path(target.place) / entry.path)
    candidate = from_index(target, entry, LATER)
    production = FolderTarget(tmp_path / "production")
    if candidate.parcel is None:
        assert any(says in reason for reason in candidate.wrong)
    else:
        with pytest.raises(PublishError, match=says):
            publish(production, [candidate.parcel])
    assert catalog_of(production).packages == ()


def test_joining_records_adds_what_is_proven_and_keeps_what_was() -> None:
    failed = GateResult(name="import with torch 2.10 in python 3.12", passed=False, detail="no")
    passed = replace(failed, passed=True, detail="yes")
    published = record(gates=(failed,), created="before", timings={"front": 1})
    ours = record(gates=(passed, replace(failed, name="size")), gpu={"passed": 1}, created="after")
    joined = join_records(published, ours)
    assert joined.gates == (passed, replace(failed, name="size"))
    assert (joined.gpu, joined.created, joined.timings) == ({"passed": 1}, "before", {"front": 1})
    assert join_records(joined, ours) == joined
    assert join_records(joined, published).gates[0] == failed  # what fails later counts too
    assert join_records(published, replace(published, created="after")) == published
    assert what_was_joined(published, joined) == (f"gate {failed.name}", "gate size", "the smoke tests on a GPU")
    assert what_was_joined(published, published) == ()


@pytest.mark.parametrize(
    "name",
    ["../evil", "pool/../../evil", "/etc/passwd", "pool//a", "", ".lock", "pool/.hidden", "a\\b", "a/", "a b", "a\nb"],
)
def test_names_that_lead_out_of_an_index_are_refused(target: FolderTarget, name: str) -> None:
    with pytest.raises(InputError, match="is no name of a file in an index"):
        checked_name(name)
    with pytest.raises(InputError):
        target.replace(name, b"", None)
    assert not Path(target.place).exists()


def test_a_file_that_changed_is_not_replaced(target: FolderTarget) -> None:
    with target.exclusive():
        assert target.create("a.json", b"one")
        seen = target.mark("a.json")
        assert not target.create("a.json", b"two")
        assert target.replace("a.json", b"two", seen)
        assert not target.replace("a.json", b"three", seen)
        assert not target.replace("b.json", b"new", Mark(tag="x", size=1))
    assert fetched(target, "a.json") == b"two"


def test_who_never_comes_first_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    attempts = iter([None, None, "done"])
    assert try_again(lambda: next(attempts), "s3://a") == "done"
    with pytest.raises(StorageError, match="changed under our hands 200 times"):
        try_again(lambda: None, "s3://a")


def test_half_written_files_of_a_killed_publisher_are_swept(house: Path, target: FolderTarget, facts: Project) -> None:
    final = Path(target.place) / parcels(house, facts)[0].path
    left = final.with_name(f".{final.name}.0a0b0c0d.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    publish(target, parcels(house, facts))
    assert not left.exists()
