"""The object store gives back what was put, or nothing."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_disk import small_disk

from hopperforge.errors import StorageError
from hopperforge.model.pack import Cost, PackedUnit
from hopperforge.report import Recorder
from hopperforge.store.objects import ObjectStore

KEY = "ab" + "0" * 62
DATA = b"\x7fELF object"
PATH = "hopper/a.cu"
COST = Cost(seconds=1.5, peak_rss=2_000)


def open_store(folder: Path) -> tuple[ObjectStore, Recorder]:
    reporter = Recorder()
    return ObjectStore.local(folder / "objects", reporter), reporter


def object_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.o")
    return path


def entry_file(folder: Path) -> Path:
    (path,) = folder.rglob("entry.json")
    return path


def test_an_object_comes_back_with_its_entry(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    entry = store.put(KEY, DATA, path=PATH, cost=COST)
    assert entry == PackedUnit(path=PATH, key=KEY, sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA), cost=COST)
    reopened, _ = open_store(tmp_path)
    assert reopened.read(KEY) == DATA
    assert reopened.find(KEY) == entry
    assert reopened.holds(KEY)
    assert reporter.warnings == []


def test_an_unknown_cost_stays_unknown(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=None)
    found = store.find(KEY)
    assert found is not None
    assert found.cost is None


def test_a_key_never_put_is_missing_without_a_word(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    assert (store.find(KEY), store.read(KEY), store.holds(KEY)) == (None, None, False)
    assert reporter.warnings == []


@pytest.mark.parametrize("damage", [b"\x7fELF objecT", b"\x7fELF", b""])
def test_a_changed_object_is_reported_removed_and_missing(tmp_path: Path, damage: bytes) -> None:
    store, reporter = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=COST)
    object_file(tmp_path).write_bytes(damage)
    assert store.read(KEY) is None
    assert len(reporter.warnings) == 1
    assert KEY in reporter.warnings[0]
    assert "does not match its sha256" in reporter.warnings[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store.find(KEY) is None
    assert len(reporter.warnings) == 1


def test_an_object_that_vanished_is_reported_and_missing(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=COST)
    object_file(tmp_path).unlink()
    assert not store.holds(KEY)
    assert store.find(KEY) is None
    assert "is missing" in reporter.warnings[0]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"path": "hopper/a.cu"}'])
def test_an_unreadable_entry_is_removed_and_missing(tmp_path: Path, text: bytes) -> None:
    store, reporter = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=COST)
    entry_file(tmp_path).write_bytes(text)
    assert store.find(KEY) is None
    assert "entry is not readable" in reporter.warnings[0]
    assert store.put(KEY, DATA, path=PATH, cost=COST).size == len(DATA)
    assert store.read(KEY) == DATA


def test_an_entry_of_another_key_is_not_believed(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    other = "ab" + "1" * 62
    store.put(KEY, DATA, path=PATH, cost=COST)
    store.put(other, b"other", path="hopper/b.cu", cost=COST)
    for path in (tmp_path / "objects" / "ab" / KEY).iterdir():
        (tmp_path / "objects" / "ab" / other / path.name).write_bytes(path.read_bytes())
    assert store.read(other) is None
    assert store.read(KEY) == DATA


def test_an_object_without_an_entry_is_not_trusted(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=COST)
    entry_file(tmp_path).unlink()
    assert store.find(KEY) is None
    assert not store.holds(KEY)
    object_file(tmp_path).write_bytes(b"half")
    store.put(KEY, DATA, path=PATH, cost=COST)
    assert store.read(KEY) == DATA
    assert reporter.warnings == []


def test_the_same_bytes_twice_are_fine_and_the_first_entry_stays(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    first = store.put(KEY, DATA, path=PATH, cost=COST)
    again = store.put(KEY, DATA, path=PATH, cost=Cost(seconds=9, peak_rss=9))
    assert again == first
    assert reporter.warnings == []


def test_other_bytes_under_a_key_are_reported_and_the_first_stay(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    first = store.put(KEY, DATA, path=PATH, cost=COST)
    assert store.put(KEY, b"other", path=PATH, cost=COST) == first
    assert store.read(KEY) == DATA
    (warning,) = reporter.warnings
    for part in ("not reproducible", KEY, first.sha256, hashlib.sha256(b"other").hexdigest()):
        assert part in warning
    assert object_file(tmp_path).read_bytes() == DATA


def test_a_damaged_object_is_replaced_by_the_next_put(tmp_path: Path) -> None:
    store, reporter = open_store(tmp_path)
    store.put(KEY, DATA, path=PATH, cost=COST)
    object_file(tmp_path).write_bytes(b"rotten")
    assert store.put(KEY, b"new", path=PATH, cost=COST).size == 3
    assert store.read(KEY) == b"new"
    assert len(reporter.warnings) == 1


PUT_FOREVER = """
import sys
from pathlib import Path
from hopperforge.report import Recorder
from hopperforge.store.objects import ObjectStore
store = ObjectStore.local(Path(sys.argv[1]), Recorder())
for number in range(100_000):
    data = sys.argv[2].encode() * (1 + number % 5) * 100_000
    store.put(f"{number % 40:064x}", data, path="hopper/a.cu", cost=None)
"""


def test_kill_9_at_any_moment_leaves_only_whole_objects(tmp_path: Path) -> None:
    for seed, entries in (("a", 3), ("b", 11), ("c", 24)):
        child = subprocess.Popen([sys.executable, "-c", PUT_FOREVER, str(tmp_path / "objects"), seed])
        while len(list(tmp_path.rglob("entry.json"))) < entries:
            assert child.poll() is None
        child.kill()
        child.wait()
    store, reporter = open_store(tmp_path)
    found = [data for number in range(40) if (data := store.read(f"{number:064x}")) is not None]
    assert found
    assert all(len(set(data)) == 1 and len(data) % 100_000 == 0 for data in found)
    assert reporter.warnings == []


@pytest.mark.integration
def test_a_full_disk_is_a_storage_error_and_leaves_the_store_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        store, _ = open_store(disk)
        store.put(KEY, DATA, path=PATH, cost=COST)
        with pytest.raises(StorageError, match="is full") as caught:
            store.put("cd" + "0" * 62, bytes(2_000_000), path="hopper/b.cu", cost=COST)
        assert "df -h" in str(caught.value)
        assert store.read(KEY) == DATA
        assert store.find("cd" + "0" * 62) is None
        store.put("cd" + "0" * 62, b"small", path="hopper/b.cu", cost=COST)


@pytest.mark.integration
def test_a_read_only_disk_is_a_storage_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        store, _ = open_store(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="read-only"):
            store.put(KEY, DATA, path=PATH, cost=COST)
        with pytest.raises(StorageError, match="read-only"):
            ObjectStore.local(disk / "another", Recorder())
