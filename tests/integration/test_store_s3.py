"""The object store that machines share, against a real S3 server on loopback; a cache folder stands for a machine."""

import concurrent.futures
import hashlib
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from tests.integration.s3_server import S3Server, names
from tests.small_disk import small_disk
from tests.unit.test_kernels import Bench, make_bench, units

from hopperforge.model.pack import Cost, KernelPack, PackedUnit, Unit
from hopperforge.model.place import StorePlace
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.kernels import cached_units, compile_pack, unit_keys
from hopperforge.store.shared import SharedObjects, held, open_shared

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

KEY = "ab" + "0" * 62
OTHER = "cd" + "0" * 62
DATA = b"\x7fELF object"
PATH = "hopper/a.cu"
COST = Cost(seconds=1.5, peak_rss=2_000)
SECRET = "a-secret-that-nobody-may-see"  # noqa: S105 - the server takes any
PLACE = "s3://kernels/team/a"


@pytest.fixture
def bucket(s3: S3Server) -> S3Store:
    """The bucket `kernels`, empty."""
    opened = s3.make_bucket("kernels")
    obstore.delete(opened, names(opened))
    return opened


@pytest.fixture
def environ(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a user exports; obstore reads it from the process itself."""
    given = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def machine(root: Path, environ: dict[str, str], place: str = PLACE) -> tuple[Workspace, Recorder]:
    reporter = Recorder()
    workspace = Workspace(
        project=root,
        cache=root / "cache",
        wheelhouse=root / "wheelhouse",
        environ=environ,
        reporter=reporter,
        shared=StorePlace.parse(place),
    )
    return workspace, reporter


def in_bucket(key: str, data: bytes) -> list[str]:
    folder = f"team/a/{key[:2]}/{key}"
    return [f"{folder}/{hashlib.sha256(data).hexdigest()}.o", f"{folder}/entry.json"]


@pytest.mark.usefixtures("bucket")
def test_plain_http_that_is_allowed_by_name_works(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store = open_shared(StorePlace.parse(PLACE), {**environ, "AWS_ALLOW_HTTP": "true"}, Recorder())
    assert store.put(KEY, DATA, path=PATH, cost=COST).sha256 == hashlib.sha256(DATA).hexdigest()


def test_what_one_machine_puts_another_reads_and_keeps(
    bucket: S3Store, environ: dict[str, str], tmp_path: Path
) -> None:
    here, _ = machine(tmp_path / "here", environ)
    there, reporter = machine(tmp_path / "there", environ)
    put = SharedObjects(here).put(KEY, DATA, path=PATH, cost=COST)
    assert names(bucket) == in_bucket(KEY, DATA)
    assert held([KEY, OTHER], there) == {KEY}
    assert not there.cache.exists()
    assert SharedObjects(there).find(KEY) == put
    assert SharedObjects(there).find_all([OTHER, KEY]) == {KEY: put}
    obstore.delete(bucket, names(bucket))
    assert SharedObjects(there).read(KEY) == DATA
    assert SharedObjects(there).find(OTHER) is None
    assert reporter.warnings == []


@pytest.mark.parametrize("damage", [b"\x7fELF objecT", b""])
def test_an_object_damaged_in_the_bucket_is_reported_and_replaced(
    bucket: S3Store, environ: dict[str, str], tmp_path: Path, damage: bytes
) -> None:
    here, _ = machine(tmp_path / "here", environ)
    there, reporter = machine(tmp_path / "there", environ)
    SharedObjects(here).put(KEY, DATA, path=PATH, cost=COST)
    obstore.put(bucket, in_bucket(KEY, DATA)[0], damage)
    objects = SharedObjects(there)
    assert objects.read(KEY) is None
    (warning,) = reporter.warnings
    assert warning.startswith(f"{PLACE}: {KEY} is damaged (the object of {PATH} does not match its sha256)")
    objects.put(KEY, DATA, path=PATH, cost=COST)
    third, _ = machine(tmp_path / "third", environ)
    assert SharedObjects(third).read(KEY) == DATA


def test_a_torn_entry_in_the_bucket_is_reported_and_replaced(
    bucket: S3Store, environ: dict[str, str], tmp_path: Path
) -> None:
    there, reporter = machine(tmp_path / "there", environ)
    obstore.put(bucket, in_bucket(KEY, DATA)[1], b'{"path": ')
    objects = SharedObjects(there)
    assert objects.find(KEY) is None
    assert "its entry is not readable" in reporter.warnings[0]
    objects.put(KEY, DATA, path=PATH, cost=COST)
    assert names(bucket) == in_bucket(KEY, DATA)


def test_of_different_bytes_the_first_in_the_bucket_stay_for_all(
    bucket: S3Store, environ: dict[str, str], tmp_path: Path
) -> None:
    here, _ = machine(tmp_path / "here", environ)
    there, reporter = machine(tmp_path / "there", environ)
    late = SharedObjects(there)
    assert late.find(KEY) is None
    first = SharedObjects(here).put(KEY, DATA, path=PATH, cost=COST)
    assert late.put(KEY, b"other", path=PATH, cost=None) == first
    assert late.read(KEY) == DATA
    assert "not reproducible" in reporter.warnings[0]
    assert names(bucket) == in_bucket(KEY, DATA)


def test_many_writers_of_one_key_agree_on_one_object(bucket: S3Store, environ: dict[str, str], tmp_path: Path) -> None:
    def write(number: int) -> PackedUnit:
        workspace, _ = machine(tmp_path / str(number), environ)
        return SharedObjects(workspace).put(KEY, b"object %d" % number, path=PATH, cost=None)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        standing = list(pool.map(write, range(8)))
    assert len({entry.sha256 for entry in standing}) == 1
    assert len([name for name in names(bucket) if name.endswith("entry.json")]) == 1
    for number in range(8):
        workspace, _ = machine(tmp_path / str(number), environ)
        data = SharedObjects(workspace).read(KEY)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == standing[0].sha256


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("bucket")
def test_a_server_that_is_down_is_said_once_and_soon_and_the_work_goes_on(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", environ["AWS_ENDPOINT_URL"])
    workspace, reporter = machine(tmp_path, environ)
    begun = time.monotonic()
    assert held([KEY, OTHER], workspace) == frozenset()
    objects = SharedObjects(workspace)
    assert objects.find(KEY) is None
    objects.put(KEY, DATA, path=PATH, cost=COST)
    assert objects.read(KEY) == DATA
    assert time.monotonic() - begun < 20
    (warning,) = reporter.warnings
    assert warning.startswith(f"the shared store {PLACE} is left out from here on")
    assert "Connection refused" in warning


@pytest.mark.parametrize(
    ("place", "says"),
    [("s3://no-such-bucket/team/a", "NoSuchBucket"), ("s3://kernels.of.none", "NoSuchBucket")],
)
def test_a_bucket_that_does_not_exist_is_said(environ: dict[str, str], tmp_path: Path, place: str, says: str) -> None:
    workspace, reporter = machine(tmp_path, environ, place)
    assert SharedObjects(workspace).find(KEY) is None
    assert len(reporter.warnings) == 1  # the server's answer to reading alone is that of a missing object
    assert SharedObjects(workspace).put(KEY, DATA, path=PATH, cost=COST).size == len(DATA)
    (warning,) = reporter.warnings
    assert place in warning
    assert says in warning
    assert SECRET not in warning


def test_a_store_that_may_only_be_read_is_read_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        here, _ = machine(tmp_path / "here", {}, str(disk))
        SharedObjects(here).put(KEY, DATA, path=PATH, cost=COST)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        there, reporter = machine(tmp_path / "there", {}, str(disk))
        objects = SharedObjects(there)
        for number in range(3):
            objects.put(f"{number:064x}", DATA, path=PATH, cost=COST)
        assert objects.read(KEY) == DATA
        (warning,) = reporter.warnings
        assert warning.startswith(f"the shared store {disk} is only read: what is compiled here stays here")


def sharing(bench: Bench, environ: dict[str, str]) -> Workspace:
    shared = StorePlace.parse(PLACE)
    return replace(bench.workspace, shared=shared, environ={**bench.workspace.environ, **environ})


def compile_there(bench: Bench, environ: dict[str, str], wanted: list[Unit]) -> KernelPack:
    return compile_pack(
        wanted,
        source=bench.source,
        toolkit=bench.toolkit,
        compiler=bench.compiler,
        sizing=bench.sizing,
        workspace=sharing(bench, environ),
    )


@pytest.mark.usefixtures("bucket")
def test_a_second_machine_compiles_nothing_and_has_the_same_pack(environ: dict[str, str], tmp_path: Path) -> None:
    here, there = make_bench(tmp_path / "here"), make_bench(tmp_path / "there")
    first = compile_there(here, environ, units())
    keys = unit_keys(units(), source=there.source, toolkit=there.toolkit, compiler=there.compiler)
    assert set(cached_units(keys, sharing(there, environ)).values()) == {True}
    second = compile_there(there, environ, units())
    assert (first.compiled, second.compiled) == (3, 0)
    assert there.calls() == []
    assert (second.key, second.sha256, second.units) == (first.key, first.sha256, first.units)
    assert there.reporter.warnings == []


def test_a_second_machine_compiles_what_was_damaged_there_and_mends_it(
    bucket: S3Store, environ: dict[str, str], tmp_path: Path
) -> None:
    first = compile_there(make_bench(tmp_path / "here"), environ, units())
    (broken,) = [name for name in names(bucket) if first.units[1].sha256 in name]
    obstore.put(bucket, broken, b"rotten")
    there, third = make_bench(tmp_path / "there"), make_bench(tmp_path / "third")
    assert compile_there(there, environ, units()).sha256 == first.sha256
    assert there.calls() == ["start b", "end b"]
    assert len(there.reporter.warnings) == 1
    assert compile_there(third, environ, units()).compiled == 0


@pytest.mark.usefixtures("bucket")
def test_a_machine_without_its_store_compiles_by_itself(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make_bench(tmp_path / "here"), make_bench(tmp_path / "there")
    first = compile_there(here, environ, units())
    environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", environ["AWS_ENDPOINT_URL"])
    second = compile_there(there, environ, units())
    assert (second.compiled, second.sha256) == (3, first.sha256)
    (warning,) = there.reporter.warnings
    assert "is left out" in warning
