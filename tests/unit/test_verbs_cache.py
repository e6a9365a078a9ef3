"""The verb cache: its words, what it says, and when it fails."""

from pathlib import Path

import pytest

from hopperforge.cli import run_command
from hopperforge.report import Recorder
from hopperforge.store.objects import ObjectStore
from hopperforge.store.packs import store_pack

DATA = b"x" * 100_000


def key(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def store(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of three objects and a pack of two of them, and the command line in front of it."""
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOPPERFORGE_WHEELHOUSE", str(tmp_path / "wheelhouse"))
    monkeypatch.delenv("HOPPERFORGE_STORE", raising=False)
    folder = tmp_path / "cache" / "store"
    objects = ObjectStore.local(folder / "objects", Recorder())
    units = [objects.put(key(n), DATA, path=f"hopper/{n}.cu", cost=None) for n in range(3)]
    store_pack(folder / "packs", units[:2], lambda _: DATA, compiled=0)
    return folder


def test_stats_count_what_is_there(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["cache", "stats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"this machine's store is {store}"
    assert [line.split("  ")[0] for line in lines[1:]] == ["store", "this machine", "this machine"]
    assert lines[2].endswith("no record of this wheelhouse  3      0.3 MB")
    assert lines[3].endswith("no record of this wheelhouse  1      0.2 MB")


def test_verify_of_a_whole_store_succeeds(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["cache", "verify"]) == 0
    said = capsys.readouterr().out
    assert said == "this machine: 3 objects read, 0 damaged\nthis machine: 1 packs read, 0 damaged\n"
    assert len(list(store.rglob("*.o"))) == 3


def test_verify_removes_what_is_damaged_and_fails(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broken,) = (store / "objects").rglob(f"{key(1)}/*.o")
    broken.write_bytes(b"rotten")
    (pack,) = (store / "packs").glob("*.tar")
    pack.write_bytes(b"rotten")
    assert run_command(["cache", "verify"]) == 4
    said = capsys.readouterr()
    assert "3 objects read, 1 damaged" in said.out
    assert "1 packs read, 1 damaged" in said.out
    assert f"{key(1)} is damaged" in said.err
    assert "error: 2 of the cached objects and packs were damaged and are gone" in said.err
    assert not broken.exists()
    assert not pack.exists()
    assert run_command(["cache", "verify"]) == 0


def test_trim_says_what_it_removed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["cache", "trim=0GB"]) == 0
    assert capsys.readouterr().out == f"removed 3 objects and 1 packs, 0.5 MB; 0.0 MB are left in {store}\n"
    assert not list(store.rglob("*.o"))


def test_share_puts_what_the_shared_store_lacks(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    ObjectStore.local(shared, Recorder()).put(key(0), DATA, path="hopper/0.cu", cost=None)
    monkeypatch.setenv("HOPPERFORGE_STORE", str(shared))
    assert run_command(["cache", "share"]) == 0
    assert capsys.readouterr().out == f"{shared}: 2 objects put, 0.2 MB\n"
    assert len(list(shared.rglob("*.o"))) == len(list((store / "objects").rglob("*.o"))) == 3
    assert run_command(["cache", "stats"]) == 0
    assert f"{shared}" in capsys.readouterr().out
    (broken,) = shared.rglob(f"{key(2)}/*.o")
    broken.write_bytes(b"rotten")
    assert run_command(["cache", "verify"]) == 4
    assert f"{shared}: 3 objects read, 1 damaged" in capsys.readouterr().out
    assert not broken.exists()


@pytest.mark.usefixtures("store")
def test_a_shared_store_that_does_not_answer_fails_what_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOPPERFORGE_STORE", str(tmp_path / "nowhere"))
    assert run_command(["cache", "share"]) == 11
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "cache takes one of stats, verify, share and trim=SIZE; none was given"),
        (["stat"], '"stat" is none; perhaps you meant "stats"'),
        (["stats", "verify"], '"stats verify" is none'),
        (["stats=1"], '"stats=1" is none'),
        (["trim"], "hint: nox -s cache -- trim=20GB"),
        (["trim="], "hint: nox -s cache -- trim=20GB"),
        (["trim=20"], 'trim=20: "20" is not a size; write it as 12GB or 12GiB'),
        (["trim=-1GB"], "is not a size"),
        (["share"], "there is no shared store: HOPPERFORGE_STORE is not set"),
    ],
)
@pytest.mark.usefixtures("store")
def test_other_words_are_refused_with_what_to_type(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["cache", *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "hint: " in said


@pytest.mark.usefixtures("store")
def test_a_store_that_is_no_place_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOPPERFORGE_STORE", "s3://id:hunter2@kernels/a")
    assert run_command(["cache", "stats"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: HOPPERFORGE_STORE: a store is named without user and password")
    assert "hunter2" not in said
