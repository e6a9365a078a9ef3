"""Trimming takes what was used longest ago, and never what a running build needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.model.pack import PackedUnit
from hopperforge.report import Recorder
from hopperforge.store.objects import ObjectStore
from hopperforge.store.packs import find_pack, store_pack
from hopperforge.store.trimming import OBJECTS, PACKS, Trimmed, in_use, trim

SIZE = 1000


def key(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def put(store: Path, name: str, *, used: int) -> PackedUnit:
    """An object of one letter that was last used at `used`."""
    objects = ObjectStore.local(store / OBJECTS, Recorder())
    unit = objects.put(key(name), name.encode() * SIZE, path=f"hopper/{name}.cu", cost=None)
    (entry,) = (store / OBJECTS).glob(f"*/{key(name)}/entry.json")
    os.utime(entry, (used, used))
    return unit


def names(store: Path) -> str:
    objects = ObjectStore.local(store / OBJECTS, Recorder())
    return "".join(sorted(bytes.fromhex(found).decode().rstrip("\0") for found in objects.sizes()))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for used, name in enumerate("cabd"):
        put(tmp_path, name, used=used)
    done = trim(tmp_path, 3 * SIZE, Recorder())
    assert names(tmp_path) == "bd"
    assert (done.objects, done.packs, done.in_use) == (2, 0, 0)
    assert done.left <= 3 * SIZE
    left = sum(path.stat().st_size for path in (tmp_path / OBJECTS).rglob("*") if path.is_file())
    assert left == done.left


def test_reading_is_use_and_looking_is_not(tmp_path: Path) -> None:
    for used, name in enumerate("abc"):
        put(tmp_path, name, used=used)
    objects = ObjectStore.local(tmp_path / OBJECTS, Recorder())
    assert objects.read(key("a")) is not None
    assert objects.check(key("b")) is not None
    assert objects.holds(key("b"))
    trim(tmp_path, 3 * SIZE, Recorder())
    assert names(tmp_path) == "ac"


def test_enough_room_removes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a", used=1)
    done = trim(tmp_path, 10 * SIZE, Recorder())
    assert done == Trimmed(objects=0, packs=0, freed=0, left=done.left, in_use=0)
    assert names(tmp_path) == "a"


def test_no_store_at_all_is_small_enough(tmp_path: Path) -> None:
    assert trim(tmp_path / "none", 0, Recorder()) == Trimmed(objects=0, packs=0, freed=0, left=0, in_use=0)


def test_packs_go_with_their_notes(tmp_path: Path) -> None:
    unit = put(tmp_path, "a", used=1)
    pack = store_pack(tmp_path / PACKS, [unit], lambda _: b"a" * SIZE, compiled=1)
    assert find_pack(tmp_path / PACKS, pack.key, Recorder()) is not None
    done = trim(tmp_path, 0, Recorder())
    assert (done.objects, done.packs, done.left) == (1, 1, 0)
    assert not [path for path in (tmp_path / PACKS).iterdir() if path.is_file()]
    assert find_pack(tmp_path / PACKS, pack.key, Recorder()) is None


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    put(tmp_path, "a", used=1)
    put(tmp_path, "b", used=9)
    (entry,) = (tmp_path / OBJECTS).glob(f"*/{key('b')}/entry.json")
    entry.unlink()
    trim(tmp_path, 2 * SIZE, Recorder())
    assert names(tmp_path) == "a"
    assert not (tmp_path / OBJECTS / key("b")[:2] / key("b")).exists()


def test_what_a_build_needs_stays_though_it_is_too_much(tmp_path: Path) -> None:
    for used, name in enumerate("abc"):
        put(tmp_path, name, used=used)
    with in_use(tmp_path, [key("a"), key("x")], Recorder()):
        done = trim(tmp_path, 0, Recorder())
        assert names(tmp_path) == "a"
        assert done.left == done.in_use > SIZE
    assert trim(tmp_path, 0, Recorder()).objects == 1
    assert not list((tmp_path / "in-use").iterdir())


HOLD = """
import sys, time
from pathlib import Path
from hopperforge.report import Recorder
from hopperforge.store.trimming import in_use
with in_use(Path(sys.argv[1]), sys.argv[2:], Recorder()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_respected_until_it_is_killed(tmp_path: Path) -> None:
    put(tmp_path, "a", used=1)
    argv = [sys.executable, "-c", HOLD, str(tmp_path), key("a")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert trim(tmp_path, 0, Recorder()).objects == 0
        child.kill()
    assert trim(tmp_path, 0, Recorder()).objects == 1
    assert not list((tmp_path / "in-use").iterdir())


def test_a_read_only_store_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a", used=1)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert ObjectStore.local(tmp_path / OBJECTS, Recorder()).read(key("a")) == b"a" * SIZE
