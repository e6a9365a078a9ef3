"""A shared store that is a folder, how places are written, and what is left of it when it does not answer."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.errors import StorageError
from hopperforge.model.place import StorePlace
from hopperforge.report import Recorder
from hopperforge.run.workspace import Outages, Workspace
from hopperforge.store.shared import SharedObjects, held, open_shared

KEY = "ab" + "0" * 62
DATA = b"\x7fELF object"
PATH = "hopper/a.cu"


def machine(root: Path, shared: Path | None) -> tuple[Workspace, Recorder]:
    reporter = Recorder()
    workspace = Workspace(
        project=root,
        cache=root / "cache",
        wheelhouse=root / "wheelhouse",
        environ={},
        reporter=reporter,
        shared=None if shared is None else StorePlace.parse(str(shared)),
    )
    return workspace, reporter


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def test_a_folder_serves_machines_that_see_it(tmp_path: Path, shared: Path) -> None:
    here, _ = machine(tmp_path / "here", shared)
    there, reporter = machine(tmp_path / "there", shared)
    put = SharedObjects(here).put(KEY, DATA, path=PATH, cost=None)
    assert held([KEY], there) == {KEY}
    assert not there.cache.exists()
    assert SharedObjects(there).find(KEY) == put
    assert reporter.warnings == []


def test_alone_a_machine_has_its_own_objects(tmp_path: Path) -> None:
    alone, reporter = machine(tmp_path, None)
    assert held([KEY], alone) == frozenset()
    objects = SharedObjects(alone)
    assert objects.read(KEY) is None
    objects.put(KEY, DATA, path=PATH, cost=None)
    assert objects.read(KEY) == DATA
    assert held([KEY], alone) == {KEY}
    assert reporter.warnings == []


def test_a_damaged_object_here_comes_from_the_shared_store(tmp_path: Path, shared: Path) -> None:
    here, reporter = machine(tmp_path / "here", shared)
    objects = SharedObjects(here)
    objects.put(KEY, DATA, path=PATH, cost=None)
    (mine,) = here.cache.rglob("*.o")
    mine.write_bytes(b"rotten")
    assert objects.read(KEY) == DATA
    assert mine.read_bytes() == DATA
    assert len(reporter.warnings) == 1


def test_a_folder_that_is_not_mounted_is_said_once_and_not_made(tmp_path: Path) -> None:
    here, reporter = machine(tmp_path / "here", tmp_path / "not-mounted")
    assert held([KEY], here) == frozenset()
    objects = SharedObjects(here)
    objects.put(KEY, DATA, path=PATH, cost=None)
    assert objects.read(KEY) == DATA
    (warning,) = reporter.warnings
    assert f"there is no folder {tmp_path / 'not-mounted'}" in warning
    assert not (tmp_path / "not-mounted").exists()


def test_what_other_machines_wrote_is_not_looked_at_by_time(tmp_path: Path, shared: Path) -> None:
    here, _ = machine(tmp_path / "here", shared)
    put = SharedObjects(here).put(KEY, DATA, path=PATH, cost=None)
    for path in shared.rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))  # a machine whose clock is half a century ahead
    there, reporter = machine(tmp_path / "there", shared)
    assert SharedObjects(there).find(KEY) == put
    assert SharedObjects(there).put(KEY, DATA, path=PATH, cost=None) == put
    assert reporter.warnings == []


def test_an_outage_begins_once_however_many_see_it() -> None:
    outages = Outages()
    firsts: list[bool] = []
    threads = [threading.Thread(target=lambda: firsts.append(outages.begin("s3://b"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == [False] * 19 + [True]
    assert outages.known("s3://b")
    assert not outages.known("s3://c")


@pytest.mark.parametrize("allowed", [{}, {"AWS_ALLOW_HTTP": "false"}], ids=["unsaid", "false"])
def test_plain_http_is_for_loopback_alone(allowed: dict[str, str]) -> None:
    environ = {"AWS_ENDPOINT_URL": "http://store.invalid:9000", **allowed}
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL is plain http to another machine") as caught:
        open_shared(StorePlace.parse("s3://bucket"), environ, Recorder())
    assert caught.value.hint is not None
    assert "AWS_ALLOW_HTTP=true" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["/srv/kernels", "s3://bucket", "s3://my-bucket.eu/a/b", "gs://bucket/a_b", "/srv/with blank"],
)
def test_places_are_written_as_they_are_read(text: str) -> None:
    assert str(StorePlace.parse(text)) == text
    assert str(StorePlace.parse(text + "/")) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kernels", "neither a folder from the root on"),
        ("./kernels", "neither a folder"),
        ("s3://", "neither a folder"),
        ("s3:/bucket", "neither a folder"),
        ("https://host/bucket", "neither a folder"),
        ("file:///srv", "neither a folder"),
        ("s3://bucket/../other", "is no prefix"),
        ("s3://bucket/a//b", "is no prefix"),
        ("s3://bucket/a?x=y", "is no prefix"),
        ("s3://id:hunter2@bucket/a", "without user and password"),
    ],
)
def test_what_is_no_place_is_refused_and_passwords_are_not_repeated(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        StorePlace.parse(text)
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        place = StorePlace.parse(text)
    except ValueError:
        return
    assert StorePlace.parse(str(place)) == place
