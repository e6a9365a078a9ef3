"""Publishing as it really happens: a bucket on an S3 server, many publishers at once, and publishers that die."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from tests.integration.s3_server import S3Server, names
from tests.integration.spoiling_proxy import Cut, Deny, Spoil, spoiling
from tests.small_disk import small_disk
from tests.unit.publish_zoo import (
    BOUND,
    STABLE,
    assert_current,
    assert_sound,
    catalog_of,
    fetched,
    parcels,
    record_of,
    shelve,
    write_record,
)

from hopperforge.cli import run_command
from hopperforge.config.project import Project
from hopperforge.index.catalog import Catalog
from hopperforge.index.whole import index_files
from hopperforge.stages.publish import publish
from hopperforge.store.targets import BucketTarget, FolderTarget, Target

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PLACE = "s3://wheels/team/fa3"
SECRET = "a-secret-that-nobody-may-see"  # noqa: S105 - the server takes any
PUBLISHERS = 20


@pytest.fixture
def bucket(s3: S3Server) -> S3Store:
    """The bucket `wheels`, empty."""
    opened = s3.make_bucket("wheels")
    obstore.delete(opened, names(opened))
    return opened


@pytest.fixture
def house(tmp_path: Path, project_root: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty wheelhouse, the command line in front of it, and what a user exports for S3."""
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOPPERFORGE_WHEELHOUSE", str(tmp_path / "wheelhouse"))
    monkeypatch.delenv("HOPPERFORGE_STORE", raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wheelhouse"


def command(*words: object) -> int:
    return run_command(["publish", *map(str, words)])


def opened(s3: S3Server, prefix: str) -> BucketTarget:
    store = S3Store(
        "wheels",
        prefix=prefix,
        endpoint=s3.url,
        access_key_id="test",
        secret_access_key="test",  # noqa: S106 - the server takes any
        client_options={"allow_http": True},
    )
    return BucketTarget(store, place=f"s3://wheels/{prefix}")


def content(bucket: S3Store) -> dict[str, bytes]:
    return {name: obstore.get(bucket, name).bytes().to_bytes() for name in names(bucket)}


def test_a_bucket_gets_the_same_index_as_a_folder(bucket: S3Store, house: Path, tmp_path: Path, s3: S3Server) -> None:
    shelve(house, STABLE)
    shelve(house, BOUND)
    assert command(f"to={PLACE}") == 0
    assert command(f"to={tmp_path}/index") == 0
    folder = {
        f"team/fa3/{path.relative_to(tmp_path / 'index').as_posix()}": path.read_bytes()
        for path in (tmp_path / "index").rglob("*")
        if path.is_file() and ("pool" in path.parts or ("simple" in path.parts and path.suffix == ".html"))
    }
    there = content(bucket)
    assert {name: there[name] for name in folder} == folder
    target = opened(s3, "team/fa3")
    assert_sound(target)
    assert_current(target)
    assert [entry.file for entry in catalog_of(target).packages] == [
        entry.file for entry in catalog_of(FolderTarget(tmp_path / "index")).packages
    ]


def test_files_have_their_types_and_a_plus_in_their_names(bucket: S3Store, house: Path, s3: S3Server) -> None:
    path = shelve(house)
    assert command(f"to={PLACE}") == 0
    expected = {
        "all/simple/fa3-fwd/index.html": ("text/html; charset=utf-8", "no-cache"),
        "all/simple/fa3-fwd/index.json": ("application/vnd.pypi.simple.v1+json", "no-cache"),
        "packages.json": ("application/json", "no-cache"),
        f"pool/fa3-fwd/{path.name}": ("application/octet-stream", "public, max-age=31536000, immutable"),
    }
    for name, (kind, cached) in expected.items():
        attributes = obstore.get(bucket, f"team/fa3/{name}").attributes
        assert attributes == {"Content-Type": kind, "Cache-Control": cached}
    page = fetched(opened(s3, "team/fa3"), "all/simple/fa3-fwd/index.html")
    assert f'href="../../../pool/fa3-fwd/{path.name.replace("+", "%2B")}#sha256='.encode() in page


@pytest.mark.usefixtures("bucket")
def test_a_second_time_nothing_is_written_to_the_bucket(
    house: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelve(house, proven=False)
    assert command(f"to={PLACE}", "--allow-unproven") == 0
    seen: list[tuple[str, str]] = []
    with pytest.MonkeyPatch.context() as patch, spoiling(s3.url, lambda *asked: seen.append(asked)) as proxy:
        patch.setenv("AWS_ENDPOINT_URL", proxy)
        capsys.readouterr()
        assert command(f"to={PLACE}", "--allow-unproven") == 0
    assert "there already, the same bytes: skipped" in capsys.readouterr().out
    assert {method for method, _ in seen} == {"GET", "HEAD"}
    write_record(path, record_of(path))
    assert command(f"to={PLACE}") == 0
    assert "added to its record: gate import" in capsys.readouterr().out
    assert not catalog_of(opened(s3, "team/fa3")).packages[0].unproven


def test_promotion_yanking_and_refusal_in_a_bucket(
    bucket: S3Store, house: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelve(house)
    assert command(f"to={PLACE}") == 0
    assert command(f"promote={PLACE}:s3://wheels/prod") == 0
    assert command("to=s3://wheels/prod", f"yank={path.name}", "reason=slow") == 0
    production = opened(s3, "prod")
    assert_sound(production)
    assert_current(production)
    assert [entry.yanked for entry in catalog_of(production).packages] == ["slow"]
    assert [entry.yanked for entry in catalog_of(opened(s3, "team/fa3")).packages] == [None]
    before = content(bucket)
    shelve(house, payload=b"other = 1\n")
    capsys.readouterr()
    assert command("to=s3://wheels/prod") == 9
    (entry,) = catalog_of(production).packages
    assert f"sha256 {entry.sha256} there, {record_of(path).wheel.sha256} here" in capsys.readouterr().err
    assert content(bucket) == before


def run_publishers(mode: str, place: str, house: Path) -> int:
    """Run publishers.py in the checkout, which is where `house` left us."""
    argv = [sys.executable, "-m", "tests.integration.publishers", mode, place, str(house), str(Path.cwd())]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return int(done.stdout)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_of_many_publishers_at_once_every_wheel_is_there_and_no_page_lost(
    kind: str, house: Path, tmp_path: Path, s3: S3Server
) -> None:
    for number in range(PUBLISHERS):
        shelve(house, f"3.0.{number}+cu124torch2.6")
    place = "s3://wheels/many" if kind == "bucket" else str(tmp_path / "index")
    target: Target = opened(s3, "many") if kind == "bucket" else FolderTarget(tmp_path / "index")
    assert run_publishers("together", place, house) == PUBLISHERS
    assert len(catalog_of(target).packages) == PUBLISHERS
    assert_sound(target)
    assert_current(target)
    assert fetched(target, "cu124/torch2.6/simple/fa3-fwd/index.html").count(b"<a ") == PUBLISHERS


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_killed_between_any_two_writes_it_leaves_an_old_or_a_new_index(
    kind: str, house: Path, tmp_path: Path, s3: S3Server, facts: Project
) -> None:
    shelve(house, BOUND)
    shelve(house, "3.0.1+cu126torch2.6")
    (tmp_path / "killed").mkdir()
    place = "s3://wheels/killed" if kind == "bucket" else str(tmp_path / "killed")
    count = run_publishers("killed", place, house)
    publish(FolderTarget(tmp_path / "old"), parcels(house, facts)[:1])
    publish(FolderTarget(tmp_path / "new"), parcels(house, facts))
    old, new = (catalog_of(FolderTarget(tmp_path / name)) for name in ("old", "new"))
    before = index_files(old)
    changed = sum(data != before.get(name) for name, data in index_files(new).items())
    assert count == 4 + changed  # the wheel, its metadata, its record, the catalog, then the pages
    for number in range(count):
        target: Target = (
            opened(s3, f"killed/{number}") if kind == "bucket" else FolderTarget(tmp_path / "killed" / str(number))
        )
        assert_old_or_new(target, old, new)
        publish(target, [])
        assert_current(target)
        publish(target, parcels(house, facts))
        assert len(catalog_of(target).packages) == 2
        assert_sound(target)
        assert_current(target)


def assert_old_or_new(target: Target, old: Catalog, new: Catalog) -> None:
    """The catalog and each page are of before or of after, and lead to files that are there."""
    assert_sound(target)
    files = [entry.file for entry in catalog_of(target).packages]
    assert files in ([entry.file for entry in old.packages], [entry.file for entry in new.packages])
    before, after = index_files(old), index_files(new)
    for name in after:
        held = target.fetch(name)
        assert (None if held is None else held.data) in (before.get(name), after[name])
    if files == [entry.file for entry in old.packages]:
        assert all(fetched(target, name) == data for name, data in before.items())


def spoiled(s3: S3Server, spoil: Spoil, *words: object) -> int:
    with spoiling(s3.url, spoil) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy)
        return command(*words)


def test_an_upload_that_is_cut_off_leaves_the_index_as_it_was(
    bucket: S3Store, house: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, BOUND)
    assert command(f"to={PLACE}") == 0
    before = content(bucket)
    path = shelve(house, STABLE, payload=b"# " + b"x" * 200_000)

    def cut(method: str, path: str) -> Cut | None:
        return Cut() if method == "PUT" and path.endswith(".whl") else None

    assert spoiled(s3, cut, f"to={PLACE}") == 11
    said = capsys.readouterr().err
    assert f"the object store at {PLACE} failed" in said
    assert SECRET not in said
    assert content(bucket) == before
    assert command(f"to={PLACE}") == 0
    assert path.name in {entry.file for entry in catalog_of(opened(s3, "team/fa3")).packages}


def test_a_bucket_that_may_only_be_read_is_said(
    bucket: S3Store, house: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house)
    assert spoiled(s3, lambda method, _: Deny() if method == "PUT" else None, f"to={PLACE}") == 11
    said = capsys.readouterr().err
    assert "AccessDenied: Access Denied" in said
    assert SECRET not in said
    assert content(bucket) == {}


def test_wrong_credentials_are_said_and_never_shown(
    bucket: S3Store, house: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house)
    s3.trust_nobody(really=True)
    try:
        assert command(f"to={PLACE}") == 11
    finally:
        s3.trust_nobody(really=False)
    said = capsys.readouterr()
    assert f"error: the object store at {PLACE} failed" in said.err
    assert "403" in said.err
    assert SECRET not in said.err + said.out
    assert content(bucket) == {}


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_said(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelve(house)
    assert command("to=s3://no-such-bucket/a") == 11
    assert "NoSuchBucket" in capsys.readouterr().err


def test_a_folder_that_may_only_be_read_is_said(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, BOUND)
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        assert command(f"to={disk}/index") == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = read(disk)
        shelve(house)
        assert command(f"to={disk}/index") == 11
        assert "cannot be written: read-only file system" in capsys.readouterr().err
        assert read(disk) == before
        assert command(f"to={disk}/index", "--dry-run") == 0


def test_a_full_disk_leaves_the_index_as_it_was(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, BOUND)
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        assert command(f"to={disk}/index") == 0
        before = read(disk)
        shelve(house, payload=b"# " + os.urandom(2_000_000).hex().encode())
        assert command(f"to={disk}/index") == 11
        assert "is full" in capsys.readouterr().err
        assert read(disk) == before


def read(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_100_mb_of_garbage_as_a_wheel_leave_the_index_as_it_was(
    bucket: S3Store, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, BOUND)
    assert command(f"to={PLACE}") == 0
    before = content(bucket)
    path = shelve(house)
    path.write_bytes(os.urandom(1_000_000) * 100)
    write_record(path, record_of(path))
    assert command(f"to={PLACE}", "--allow-unproven") == 9
    said = capsys.readouterr().err
    assert f"{path.name}: {path} cannot be read as a wheel: File is not a zip file" in said
    assert content(bucket) == before
