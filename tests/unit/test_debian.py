"""Debian packages: which mirrors are asked, what is taken out, and what is refused."""

import hashlib
import tarfile
from pathlib import Path

import pytest
from tests.unit.deb_zoo import apt, deb, path_with

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.toolkit import DebianPackage
from hopperforge.report import Recorder
from hopperforge.run.archives import unpack_deb
from hopperforge.run.debian import fetch_debian, parse_mirrors
from hopperforge.run.workspace import Workspace

POOL = "pool/main/n/nvcc/nvcc_12.4~12.4.1-2_amd64.deb"


def workspace(tmp_path: Path, path: str) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    made = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PATH": path},
        reporter=recorder,
    )
    return made, recorder


def pinned(path: Path) -> DebianPackage:
    return DebianPackage(
        pool=POOL, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), members={"usr/bin/nvcc": "bin/nvcc"}
    )


def test_mirrors_are_read_in_apts_order_each_once() -> None:
    lines = [
        "Reading package lists...",
        "'http://a.example/debian/dists/stable/InRelease' a_InRelease 0 ",
        "'http://a.example/debian/dists/stable/main/binary-amd64/Packages.xz' a_Packages 0 ",
        "'https://user:word@b.example/x/dists/y/InRelease' b_InRelease 0 ",
        "'mirror+file:/etc/apt/mirrors.list/dists/stable/InRelease' c_InRelease 0 ",
        "'http://flat.example/./InRelease' flat_InRelease 0 ",
    ]
    assert parse_mirrors(lines) == (
        "http://a.example/debian",
        "https://user:word@b.example/x",
        "mirror+file:/etc/apt/mirrors.list",
    )


def test_the_first_mirror_that_has_the_package_gives_it(tmp_path: Path) -> None:
    there = deb(tmp_path / "second" / POOL, {"usr/bin/nvcc": "nvcc"})
    programs = apt(tmp_path / "apt", f"copy:{tmp_path}/first", f"copy:{tmp_path}/second", f"copy:{tmp_path}/third")
    place, recorder = workspace(tmp_path, path_with(programs))
    fetched = fetch_debian(pinned(there), tmp_path / "into", place)
    assert fetched == tmp_path / "into" / "nvcc_12.4~12.4.1-2_amd64.deb"
    assert fetched.read_bytes() == there.read_bytes()
    assert (programs / "asked").read_text().splitlines() == [
        f"copy:{tmp_path}/first/{POOL}",
        f"copy:{tmp_path}/second/{POOL}",
    ]
    assert recorder.notes[0].startswith("fetched nvcc_12.4~12.4.1-2_amd64.deb: ")


def test_a_list_of_mirrors_in_a_file_is_read(tmp_path: Path) -> None:
    there = deb(tmp_path / "listed" / POOL, {"usr/bin/nvcc": "nvcc"})
    (tmp_path / "mirrors").write_text(f"# ours\ncopy:{tmp_path}/gone/\ncopy:{tmp_path}/listed/\tpriority:2\n")
    programs = apt(tmp_path / "apt", f"mirror+file:{tmp_path}/mirrors")
    place, _ = workspace(tmp_path, path_with(programs))
    assert fetch_debian(pinned(there), tmp_path / "into", place).is_file()


def test_no_mirror_with_the_package_names_each_without_credentials(tmp_path: Path) -> None:
    there = deb(tmp_path / "x.deb", {"usr/bin/nvcc": "nvcc"})
    programs = apt(tmp_path / "apt", "http://user:word@a.example/debian")
    place, _ = workspace(tmp_path, path_with(programs))
    with pytest.raises(ToolError, match="cannot be fetched: no Debian mirror of this machine's apt has it") as caught:
        fetch_debian(pinned(there), tmp_path / "into", place)
    assert caught.value.detail == ("http://a.example/debian: 404  Not Found",)
    assert "HOPPERFORGE_DEBIAN_MIRROR" in str(caught.value.hint)


def test_an_apt_without_sources_is_said(tmp_path: Path) -> None:
    place, _ = workspace(tmp_path, path_with(apt(tmp_path / "apt")))
    with pytest.raises(ToolError) as caught:
        fetch_debian(pinned(deb(tmp_path / "x.deb", {})), tmp_path / "into", place)
    assert caught.value.detail == ("apt's sources name no mirror with packages of a Debian release",)


def test_a_machine_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    place, _ = workspace(tmp_path, str(tmp_path / "empty"))
    with pytest.raises(ToolError) as caught:
        fetch_debian(pinned(deb(tmp_path / "x.deb", {})), tmp_path / "into", place)
    assert caught.value.sentence == (
        "nvcc_12.4~12.4.1-2_amd64.deb cannot be fetched: apt-get is not on this machine, so it has no Debian mirror"
    )


def test_other_bytes_than_the_pinned_ones_are_refused_and_not_kept(tmp_path: Path) -> None:
    package = pinned(deb(tmp_path / "x.deb", {"usr/bin/nvcc": "nvcc"}))
    deb(tmp_path / "mirror" / POOL, {"usr/bin/nvcc": "other"})
    place, _ = workspace(tmp_path, path_with(apt(tmp_path / "apt", f"copy:{tmp_path}/mirror")))
    with pytest.raises(SourceError, match="is not the file that is pinned"):
        fetch_debian(package, tmp_path / "into", place)
    assert list((tmp_path / "into").iterdir()) == []


# What is taken out of a package.


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_wanted_files_come_out_at_their_places_and_nothing_else(tmp_path: Path) -> None:
    files = {"usr/bin/nvcc": "nvcc", "usr/lib/libx.a": "library", "usr/share/doc": "text"}
    # Absolute links are common in packages: their root is the system.
    package = deb(tmp_path / "x.deb", files, link("./usr/lib/nvcc.profile", "/etc/nvcc.profile"))
    unpack_deb(package, tmp_path / "out", {"usr/bin/nvcc": "bin/nvcc", "usr/lib/libx.a": "lib/libx.a"})
    out = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert out == {"bin/nvcc", "lib/libx.a"}
    assert (tmp_path / "out/bin/nvcc").read_text() == "nvcc"
    assert (tmp_path / "out/bin/nvcc").stat().st_mode & 0o111 == 0o111
    assert (tmp_path / "out/lib/libx.a").stat().st_mode & 0o111 == 0


def test_a_package_that_lacks_a_wanted_file_is_refused(tmp_path: Path) -> None:
    package = deb(tmp_path / "x.deb", {"usr/bin/nvcc": "nvcc"})
    with pytest.raises(SourceError, match=r"x\.deb is not what was expected: it lacks usr/bin/cicc"):
        unpack_deb(package, tmp_path / "out", {"usr/bin/nvcc": "bin/nvcc", "usr/bin/cicc": "bin/cicc"})


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (tarfile.TarInfo("/etc/passwd"), "has an absolute path"),
        (tarfile.TarInfo("./../x"), "climbs out of its folder"),
        (link("./usr/bin/nvcc", "/usr/bin/true"), "is wanted as a file, and is none"),
    ],
)
def test_dangerous_members_are_refused(extra: tarfile.TarInfo, reason: str, tmp_path: Path) -> None:
    package = deb(tmp_path / "x.deb", {"usr/bin/other": "x"}, extra)
    with pytest.raises(SourceError, match=reason):
        unpack_deb(package, tmp_path / "out", {"usr/bin/nvcc": "bin/nvcc"})


def test_a_device_is_refused(tmp_path: Path) -> None:
    device = tarfile.TarInfo("./dev/null")
    device.type = tarfile.CHRTYPE
    with pytest.raises(SourceError, match="is a device or a pipe"):
        unpack_deb(deb(tmp_path / "x.deb", {}, device), tmp_path / "out", {"a": "a"})


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.deb").write_text("hello")
    with pytest.raises(SourceError, match="it is no Debian package"):
        unpack_deb(tmp_path / "text.deb", tmp_path / "out", {"a": "a"})
    with pytest.raises(SourceError, match=r"it holds no data\.tar that can be read"):
        unpack_deb(deb(tmp_path / "new.deb", {}, content="data.tar.zst"), tmp_path / "out", {"a": "a"})


def test_a_cut_off_package_is_refused(tmp_path: Path) -> None:
    package = deb(tmp_path / "x.deb", {f"usr/bin/{number}": f"{number}" * 5000 for number in range(50)})
    package.write_bytes(package.read_bytes()[:-200])
    with pytest.raises(SourceError, match="is cut off, damaged, or not an archive"):
        unpack_deb(package, tmp_path / "out", {"usr/bin/49": "a", "usr/bin/50": "b"})
