"""Archives from outside: what they may hold, and every way in which they may not be trusted."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from hopperforge.errors import SourceError, StorageError
from hopperforge.run.archives import unpack_tar, unpack_zip

Member = tuple[tarfile.TarInfo, bytes]


def _file(name: str, content: bytes = b"content", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def _special(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def _tar(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, members: dict[str, tuple[bytes, int]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, (content, mode) in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(info, content)
    return path


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_tar_members_come_out_with_content_and_executable_bit(tmp_path: Path) -> None:
    archive = _tar(
        tmp_path / "a.tar.gz", _special("top", tarfile.DIRTYPE), _file("top/run", b"go", 0o750), _file("top/b/c")
    )
    unpack_tar(archive, tmp_path / "out")
    assert _files(tmp_path / "out") == {"top/run": "go", "top/b/c": "content"}
    assert (tmp_path / "out/top/run").stat().st_mode & 0o111 == 0o111
    assert (tmp_path / "out/top/b/c").stat().st_mode & 0o111 == 0


def test_the_filter_chooses_and_moves_members(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", _file("top/keep/x"), _file("top/leave/y"))

    def keep(member: PurePosixPath) -> PurePosixPath | None:
        return member.relative_to("top/keep") if member.is_relative_to("top/keep") else None

    unpack_tar(archive, tmp_path / "out", keep)
    assert _files(tmp_path / "out") == {"x": "content"}


def test_links_inside_the_tree_come_out(tmp_path: Path) -> None:
    archive = _tar(
        tmp_path / "a.tar",
        _special("top/lib64", tarfile.SYMTYPE, "lib"),
        _file("top/lib/x"),
        _special("top/hard", tarfile.LNKTYPE, "top/lib/x"),
    )
    unpack_tar(archive, tmp_path / "out")
    assert (tmp_path / "out/top/lib64").readlink() == Path("lib")
    assert (tmp_path / "out/top/lib64/x").read_text() == "content"
    assert (tmp_path / "out/top/hard").read_text() == "content"


@pytest.mark.parametrize(
    ("members", "name", "reason"),
    [
        ([_file("../x")], "../x", "climbs out"),
        ([_file("a/../../x")], "a/../../x", "climbs out"),
        ([_file("/absolute/x")], "/absolute/x", "absolute"),
        ([_special("a", tarfile.SYMTYPE, "/etc/passwd")], "a", "link out of the tree, to '/etc/passwd'"),
        ([_special("a/b", tarfile.SYMTYPE, "../../x")], "a/b", "link out of the tree"),
        ([_special("a", tarfile.LNKTYPE, "../x")], "a", "link out of the tree"),
        ([_special("a", tarfile.LNKTYPE, "gone")], "a", "which is no file of the archive"),
        ([_special("a", tarfile.FIFOTYPE)], "a", "device or a pipe"),
        ([_special("a", tarfile.CHRTYPE)], "a", "device or a pipe"),
        ([_special("a", tarfile.BLKTYPE)], "a", "device or a pipe"),
        ([_file("a"), _file("a")], "a", "comes twice"),
        ([_file("a"), _special("a", tarfile.SYMTYPE, "b")], "a", "comes twice"),
        ([_file("a"), _file("a/b")], "a/b", "below another file"),
        # `deep` is the tree's top, so `way` leads above it although each link alone looks harmless
        (
            [_special("s/deep", tarfile.SYMTYPE, ".."), _special("way", tarfile.SYMTYPE, "s/deep/../x")],
            "way",
            "link out of the tree",
        ),
        # the same in the other order: `way` leads above the tree only once `turn` is made
        (
            [_special("way", tarfile.SYMTYPE, "turn/../x"), _special("turn", tarfile.SYMTYPE, ".")],
            "way",
            "link out of the tree",
        ),
        (
            [
                _special("way", tarfile.SYMTYPE, "turn/.."),
                _special("turn", tarfile.SYMTYPE, "."),
                _special("way/x/y", tarfile.SYMTYPE, "z"),
            ],
            "way/x/y",
            "below a link out of the tree",
        ),
        ([_special("a", tarfile.SYMTYPE, "a//b")], "a", "link back to itself"),
    ],
)
def test_dangerous_tar_members_are_refused_by_name(
    members: list[Member], name: str, reason: str, tmp_path: Path
) -> None:
    archive = _tar(tmp_path / "evil.tar.gz", *members)
    with pytest.raises(SourceError) as caught:
        unpack_tar(archive, tmp_path / "deep" / "out")
    assert caught.value.sentence.startswith(f"evil.tar.gz is refused: its member {name!r} ")
    assert reason in caught.value.sentence
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "deep" / "x").exists()


def test_a_member_is_never_written_through_a_link(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", _special("door", tarfile.SYMTYPE, "."), _file("door/x"))
    with pytest.raises(SourceError, match="'door' comes twice"):
        unpack_tar(archive, tmp_path / "out")


def test_a_dangerous_member_is_refused_though_nobody_wants_it(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "evil.tar", _file("fine"), _file("../x"))
    with pytest.raises(SourceError, match=r"'\.\./x' climbs out"):
        unpack_tar(archive, tmp_path / "out", lambda member: member if member.name == "fine" else None)


def _whole(tmp_path: Path, suffix: str) -> bytes:
    # random-looking content, so that half the bytes of the gzip hold about half the members
    members = [_file(f"m{number}", bytes((number * i * i) % 251 for i in range(3000))) for number in range(8)]
    return _tar(tmp_path / f"whole{suffix}", *members).read_bytes()


def _damage_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 64]) + data[middle + 64 :]


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [
        (".tar.gz", lambda data: data[: len(data) // 2]),
        (".tar.gz", lambda data: data[:-4]),
        (".tar.gz", _damage_middle),
        (".tar.gz", lambda data: gzip.compress(gzip.decompress(data)[: 3584 * 3])),
        (".tar.gz", lambda data: gzip.compress(gzip.decompress(data)[: 3584 * 3 + 700])),
        (".tar", lambda data: data[: 3584 * 3]),
        (".tar", lambda data: data[: 3584 * 3] + b"damaged" + data[3584 * 3 + 7 :]),
        (".tar", lambda data: data[: 3584 * 3 + 100]),
        (".tar", lambda data: data[: 3584 * 3 + 700]),
        (".tar.gz", lambda _: b"<html>not found</html>"),
        (".tar.gz", lambda _: b""),
    ],
)
def test_an_archive_cut_off_or_damaged_anywhere_is_an_error(
    suffix: str, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    archive = tmp_path / f"bad{suffix}"
    archive.write_bytes(spoil(_whole(tmp_path, suffix)))
    with pytest.raises(SourceError, match=rf"^bad{suffix} is cut off, damaged, or not an archive: ") as caught:
        unpack_tar(archive, tmp_path / "out", lambda _: None)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"rm {archive}")


def test_an_archive_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack_tar(tmp_path / "gone.tar", tmp_path / "out")


def test_unpacking_where_writing_is_refused_is_a_storage_error(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", _file("x"))
    with pytest.raises(StorageError, match="cannot be written"):
        unpack_tar(archive, Path("/sys/hopperforge"))


def test_zip_members_come_out_with_content_and_executable_bit(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.whl", {"bin/": (b"", 0o40755), "bin/nvcc": (b"go", 0o100755), "x.h": (b"h", 0)})
    unpack_zip(archive, tmp_path / "out")
    assert _files(tmp_path / "out") == {"bin/nvcc": "go", "x.h": "h"}
    assert (tmp_path / "out/bin/nvcc").stat().st_mode & 0o111 == 0o111
    assert (tmp_path / "out/x.h").stat().st_mode & 0o111 == 0


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../x", 0o100644, "climbs out"),
        ("/absolute/x", 0o100644, "absolute"),
        ("a", stat.S_IFLNK | 0o777, "is a link or a device"),
        ("a", stat.S_IFIFO | 0o644, "is a link or a device"),
    ],
)
def test_dangerous_zip_members_are_refused_by_name(name: str, mode: int, reason: str, tmp_path: Path) -> None:
    archive = _zip(tmp_path / "evil.whl", {name: (b"x", mode)})
    with pytest.raises(SourceError) as caught:
        unpack_zip(archive, tmp_path / "out", lambda _: None)
    assert caught.value.sentence.startswith(f"evil.whl is refused: its member {name!r} ")
    assert reason in caught.value.sentence


def test_a_file_of_two_wheels_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.whl", {"x": (b"x", 0)})
    unpack_zip(archive, tmp_path / "out")
    with pytest.raises(SourceError, match="'x' comes twice"):
        unpack_zip(archive, tmp_path / "out")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:60] + bytes(byte ^ 0xFF for byte in data[60:90]) + data[90:],
        lambda _: b"no zip",
    ],
)
def test_a_damaged_zip_is_an_error(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = _zip(tmp_path / "whole.whl", {"x": (bytes(i * i % 251 for i in range(5000)), 0)})
    archive = tmp_path / "bad.whl"
    archive.write_bytes(spoil(whole.read_bytes()))
    with pytest.raises(SourceError, match=r"^bad.whl is cut off, damaged, or not an archive: "):
        unpack_zip(archive, tmp_path / "out")
