"""Files on disk: hashes that agree with git and sha256sum, all-or-nothing writes, locks between processes."""

import errno
import fcntl
import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from hopperforge.errors import SourceError, StorageError
from hopperforge.run.files import (
    Lock,
    git_tree_hash,
    make_folder,
    remove_folder,
    replace_folder,
    sha256_file,
    storage_guard,
    sweep,
    temporary_folder,
    write_atomic,
    writing,
)


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hopper\n" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"hopper\n" * 100_000).hexdigest()


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with writing(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_a_storage_error_with_the_space_left(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"the disk that holds .* is full") as caught,
        storage_guard(tmp_path / "cache" / "deep"),
        Path("/dev/full").open("wb", buffering=0) as stream,
    ):
        stream.write(b"x")
    assert "MB free of" in caught.value.detail[0]
    assert caught.value.hint is not None
    named = Path(caught.value.hint.split()[2])
    assert named.is_mount()
    assert tmp_path.is_relative_to(named)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "operation not permitted"),
        (errno.EROFS, "read-only file system"),
    ],
)
def test_a_closed_folder_is_a_storage_error(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, storage_guard(tmp_path):
        raise OSError(number, os.strerror(number), "/there")
    assert caught.value.sentence == f"{tmp_path} cannot be written: {words}"
    assert "at /there" in caught.value.detail


def test_other_system_errors_pass_the_guard(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_guard(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_a_temporary_folder_goes_unless_it_was_published(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "work") as dropped:
        (dropped / "file").write_text("x")
        (dropped / "closed").mkdir(mode=0o500)
    assert list(tmp_path.iterdir()) == []
    with temporary_folder(tmp_path, "work") as work:
        (work / "file").write_text("x")
        replace_folder(work, tmp_path / "final")
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final" / "file").read_text() == "x"


def test_the_first_published_folder_wins(tmp_path: Path) -> None:
    final = make_folder(tmp_path / "final")
    (final / "file").write_text("first")
    with temporary_folder(tmp_path, "final") as late:
        (late / "file").write_text("second")
        replace_folder(late, final)
        assert not late.exists()
    assert (final / "file").read_text() == "first"


def test_removing_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    remove_folder(tmp_path / "missing")


def test_sweep_takes_leftovers_of_one_name_only(tmp_path: Path) -> None:
    for name in (".a.tar.1f.part", ".a.tar.2e", ".b.tar.1f.part", "a.tar"):
        (tmp_path / name).mkdir() if name.endswith("2e") else (tmp_path / name).write_text("")
    sweep(tmp_path, "a.tar")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".b.tar.1f.part", "a.tar"]


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_tree_hash_is_that_of_git(tmp_path: Path) -> None:
    # names chosen so that a folder sorts elsewhere than a file of the same name would
    for name in ("a.b", "a/x", "a0", "ab/c/deep", "ab/c.d", "empty", "z ünïcode"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if name != "empty" else b"")
    (tmp_path / "nothing" / "in").mkdir(parents=True)
    expected = git_tree_hash(tmp_path)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "-c", "core.autocrlf=false", "add", "--all")
    assert expected == _git(tmp_path, "write-tree")


def test_tree_hash_takes_every_file_as_not_executable(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("x")
    plain = git_tree_hash(tmp_path)
    script.chmod(0o755)
    assert git_tree_hash(tmp_path) == plain


def test_tree_hash_of_nothing_is_gits_empty_tree(tmp_path: Path) -> None:
    assert git_tree_hash(tmp_path) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_a_link_has_no_tree_hash(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(SourceError, match="link is neither a file nor a folder"):
        git_tree_hash(tmp_path)


def test_a_lock_has_one_holder_and_says_when_it_waits(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    events: list[str] = []
    waiting = threading.Event()

    def on_wait() -> None:
        events.append("waits")
        waiting.set()

    def second() -> None:
        with Lock(path, on_wait=on_wait):
            events.append("second")

    thread = threading.Thread(target=second)
    with Lock(path, on_wait=lambda: events.append("never")):
        thread.start()
        assert waiting.wait(5)
        events.append("first ends")
    thread.join(5)
    assert events == ["waits", "first ends", "second"]


def test_a_lock_lives_as_long_as_a_child_that_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as lock:
        child = subprocess.Popen(["sleep", "30"], pass_fds=[lock.fileno()])
    try:
        with path.open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_not_held_has_no_descriptor(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with lock:
        assert lock.fileno() > 2
    with pytest.raises(ValueError, match="is not held"):
        lock.fileno()
