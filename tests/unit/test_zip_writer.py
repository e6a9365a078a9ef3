"""Archives that are the same bytes on every machine, and that every reader of zips can read."""

import hashlib
import io
import time
import zipfile

import pytest

from hopperforge.errors import RepairError
from hopperforge.stages import zip_writer
from hopperforge.stages.zip_writer import Member, write_zip

EPOCH = 1_700_000_000
FILE = 0o100644


def _text(words_wanted: int) -> bytes:
    """Text that a compressor has something to decide about: numbers of a generator that is written down here."""
    state = 1
    words: list[bytes] = []
    while len(words) < words_wanted:
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        words.append(b"%x " % (state >> 16 & 0x3FF))
    return b"".join(words)


def _written(*members: Member, epoch: int = EPOCH) -> bytes:
    out = io.BytesIO()
    write_zip(out, members, epoch=epoch)
    return out.getvalue()


def test_the_bytes_are_those_of_every_other_machine() -> None:
    # a golden value: another Python, processor, zlib or build of the library that gives other bytes fails here
    made = _written(Member(name="a/text", data=_text(20_000), mode=FILE), Member(name="b/ü", data=b"", mode=0o100755))
    assert hashlib.sha256(made).hexdigest() == "611b8be5740de657a05cdacfa805b2423cc791423e4132ecee513a38427280d7"


def test_pythons_own_reader_finds_everything_as_it_was_put_in() -> None:
    members = (
        Member(name="p/_C.so", data=_text(5_000), mode=0o100755),
        Member(name="p/naïve.txt", data=b"x" * 100_000, mode=FILE),
        Member(name="p/empty", data=b"", mode=FILE),
    )
    with zipfile.ZipFile(io.BytesIO(_written(*members))) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert [(info.filename, archive.read(info)) for info in infos] == [(one.name, one.data) for one in members]
    assert [info.external_attr >> 16 for info in infos] == [0o100755, FILE, FILE]
    assert {info.date_time for info in infos} == {time.gmtime(EPOCH)[:6]}
    assert {(info.create_system, info.compress_type, info.flag_bits) for info in infos} == {(3, 8, 0), (3, 8, 0x800)}


def test_the_time_is_the_epochs_and_no_earlier_than_zip_can_say() -> None:
    member = Member(name="a", data=b"", mode=FILE)
    assert _written(member) != _written(member, epoch=EPOCH + 2)
    with zipfile.ZipFile(io.BytesIO(_written(member, epoch=0))) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


def test_no_zip_without_members_is_broken() -> None:
    with zipfile.ZipFile(io.BytesIO(_written())) as archive:
        assert archive.namelist() == []


class Huge(bytes):
    """Says that it is of 4 GiB."""

    def __len__(self) -> int:
        return 2**32


def test_a_member_of_4_gib_is_refused_before_it_is_packed() -> None:
    with pytest.raises(RepairError, match="a is more than a zip without extensions can hold"):
        _written(Member(name="a", data=Huge(b"x"), mode=FILE))


def test_what_needs_the_extension_for_large_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_writer, "_LARGEST", 1000)
    with pytest.raises(RepairError, match="more than a zip without extensions can hold"):
        _written(Member(name="a", data=b"x" * 1001, mode=FILE))
    monkeypatch.setattr(zip_writer, "_MOST_MEMBERS", 1)
    with pytest.raises(RepairError, match="b is more than"):
        _written(Member(name="a", data=b"", mode=FILE), Member(name="b", data=b"", mode=FILE))
