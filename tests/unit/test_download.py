"""Fetching pinned files: pip's own settings decide where from, the sha256 decides whether it counts."""

import hashlib
import sys
from pathlib import Path

import pytest

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.toolkit import PinnedFile
from hopperforge.report import Recorder
from hopperforge.run.download import cached_path, fetch, fetch_all
from hopperforge.run.pip_settings import (
    PackageSource,
    SourceKind,
    parse_config_list,
    parse_variables,
    read_pip_settings,
    settings_of,
)
from hopperforge.run.workspace import Workspace

CONTENT = b"a wheel for another Python\n"
NAME = "some_kit-1.0+cu130-cp399-cp399-manylinux_2_28_x86_64.whl"


def _pinned(content: bytes = CONTENT, filename: str = NAME) -> PinnedFile:
    return PinnedFile(project="some-kit", filename=filename, sha256=hashlib.sha256(content).hexdigest())


def _workspace(tmp_path: Path, **pip: str) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    workspace = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PIP_CONFIG_FILE": "/dev/null", **pip},
        reporter=recorder,
    )
    return workspace, recorder


def _index(folder: Path, content: bytes = CONTENT, *, announced: str | None = None) -> str:
    """Make a package index of static pages and give its address."""
    page = folder / "some-kit"
    page.mkdir(parents=True)
    (page / NAME).write_bytes(content)
    fragment = "" if announced is None else f"#sha256={announced}"
    href = NAME.replace("+", "%2B") + fragment
    (page / "index.html").write_text(
        f'<a href="{href}" data-yanked="replaced" data-requires-python="&gt;=3.99">{NAME}</a>'
    )
    return folder.as_uri()


def _kept(tmp_path: Path) -> list[str]:
    return [
        path.name for path in (tmp_path / "cache" / "files").rglob("*") if path.suffix != ".lock" and path.is_file()
    ]


def test_config_list_sections_override_one_another() -> None:
    lines = [
        "WARNING: something else",
        ":env:.timeout='180'",
        "download.timeout='20'",
        "global.timeout='10'",
        "global.index-url='https://index.example/simple'",
        "install.index-url='https://other.example/simple'",
        "freeze.index-url='https://never.example/simple'",
        'global.cert="/it\'s/here.pem"',
    ]
    assert parse_config_list(lines) == {
        "timeout": "180",
        "index-url": "https://other.example/simple",
        "cert": "/it's/here.pem",
    }


def test_variables_are_read_as_pip_reads_them() -> None:
    environ = {"PIP_INDEX_URL": "https://index.example", "PIP_EXTRA_INDEX_URL": "", "PIPX_HOME": "x", "HOME": "y"}
    assert parse_variables(environ) == {"index-url": "https://index.example"}


def test_settings_keep_every_place_under_a_name_that_can_be_shown() -> None:
    settings = settings_of(
        {
            "extra-index-url": "https://user:secret@a.example\nhttps://b.example",
            "find-links": "/wheels",
            "trusted-host": "a.example b.example:8080",
            "default-timeout": "180",
            "cert": "/ca.pem",
            "proxy": "http://proxy.example",
        }
    )
    assert settings.sources == (
        PackageSource(setting="index-url (pip's default)", kind=SourceKind.INDEX, place=None),
        PackageSource(setting="extra-index-url 1", kind=SourceKind.INDEX, place="https://user:secret@a.example"),
        PackageSource(setting="extra-index-url 2", kind=SourceKind.INDEX, place="https://b.example"),
        PackageSource(setting="find-links", kind=SourceKind.FIND_LINKS, place="/wheels"),
    )
    assert settings.trusted_hosts == ("a.example", "b.example:8080")
    assert (settings.timeout, settings.cert, settings.proxy) == (180.0, "/ca.pem", "http://proxy.example")


def test_no_index_leaves_find_links_alone() -> None:
    settings = settings_of({"no-index": "1", "index-url": "https://index.example", "find-links": "/wheels"})
    assert [source.setting for source in settings.sources] == ["find-links"]


def test_a_timeout_that_is_no_number_is_named() -> None:
    with pytest.raises(ToolError, match="timeout is 'soon', which is not a number"):
        settings_of({"timeout": "soon"})


def test_settings_come_from_pip_itself(tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = https://index.example/simple\ntimeout = 7\n")
    settings = read_pip_settings({"PIP_CONFIG_FILE": str(configuration), "PIP_TIMEOUT": "8"}, tmp_path)
    assert settings.sources[0].place == "https://index.example/simple"
    assert settings.timeout == 8.0


def test_without_pip_the_variables_count(tmp_path: Path) -> None:
    # this Python starts without its site-packages, so without pip
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.path[:] = [p for p in sys.path if 'site-p' not in p]\n")
    environ = {"PYTHONPATH": str(tmp_path), "PIP_INDEX_URL": "https://index.example/simple"}
    settings = read_pip_settings(environ, tmp_path)
    assert [source.place for source in settings.sources] == ["https://index.example/simple"]


def test_a_broken_pip_configuration_is_an_error(tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("index-url without a section\n")
    with pytest.raises(ToolError, match="pip's configuration cannot be read") as caught:
        read_pip_settings({"PIP_CONFIG_FILE": str(configuration)}, tmp_path)
    assert caught.value.hint == f"{sys.executable} -m pip config debug"


def test_a_file_is_found_by_name_whatever_python_it_is_for(tmp_path: Path) -> None:
    workspace, recorder = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index"))
    path = fetch(_pinned(), workspace)
    assert path == workspace.files / _pinned().sha256 / NAME
    assert path.read_bytes() == CONTENT
    (note,) = recorder.notes
    assert note.startswith(f"fetched {NAME}: 0.0 MB in ")


def test_a_file_is_found_in_a_find_links_folder(tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / NAME).write_bytes(CONTENT)
    workspace, _ = _workspace(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(links))
    assert fetch(_pinned(), workspace).read_bytes() == CONTENT


def test_a_cached_file_needs_neither_index_nor_pip(tmp_path: Path) -> None:
    index = _index(tmp_path / "index")
    fetch(_pinned(), _workspace(tmp_path, PIP_INDEX_URL=index)[0])
    broken = tmp_path / "pip.conf"
    broken.write_text("not readable as a configuration\n")
    workspace, recorder = _workspace(tmp_path, PIP_CONFIG_FILE=str(broken))
    assert fetch_all([_pinned(), _pinned()], workspace) == [cached_path(_pinned(), workspace)] * 2
    assert recorder.notes == []


def test_a_cached_file_that_changed_is_fetched_again(tmp_path: Path) -> None:
    workspace, recorder = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index"))
    path = fetch(_pinned(), workspace)
    path.write_bytes(CONTENT.replace(b"wheel", b"whale"))
    assert fetch(_pinned(), workspace).read_bytes() == CONTENT
    (warning,) = recorder.warnings
    assert warning.startswith(f"{path} has changed since it was fetched")


def test_the_half_file_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    workspace, _ = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index"))
    folder = cached_path(_pinned(), workspace).parent
    folder.mkdir(parents=True)
    (folder / f".{NAME}.0a1b2c3d.part").write_bytes(CONTENT[:5])
    fetch(_pinned(), workspace)
    assert _kept(tmp_path) == [NAME]


def test_other_content_is_refused_with_both_hashes_and_nothing_kept(tmp_path: Path) -> None:
    other = CONTENT + b"changed"
    workspace, _ = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index", other))
    with pytest.raises(SourceError, match="is not the file that is pinned") as caught:
        fetch(_pinned(), workspace)
    assert caught.value.detail == (
        f"pinned: sha256 {_pinned().sha256}",
        f"index-url: served sha256 {_pinned(other).sha256}",
    )
    assert _kept(tmp_path) == []


def test_an_index_that_announces_another_hash_is_not_asked_for_the_file(tmp_path: Path) -> None:
    workspace, _ = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index", announced="0" * 64))
    with pytest.raises(SourceError) as caught:
        fetch(_pinned(), workspace)
    assert caught.value.detail[1] == f"index-url: announces sha256 {'0' * 64}"


def test_the_next_place_is_asked_when_one_has_other_content(tmp_path: Path) -> None:
    workspace, _ = _workspace(
        tmp_path,
        PIP_INDEX_URL=_index(tmp_path / "wrong", b"wrong"),
        PIP_EXTRA_INDEX_URL=_index(tmp_path / "right", announced=_pinned().sha256),
    )
    assert fetch(_pinned(), workspace).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", [ToolError, SourceError])
def test_an_absent_file_names_every_place_by_its_setting(kind: type[ToolError | SourceError], tmp_path: Path) -> None:
    missing = (tmp_path / "gone").as_uri()
    workspace, _ = _workspace(
        tmp_path, PIP_INDEX_URL=_index(tmp_path / "index"), PIP_FIND_LINKS=f"{missing} {tmp_path}/none"
    )
    with pytest.raises(kind, match=r"^other-2\.0\.tar\.gz cannot be fetched from the package index") as caught:
        fetch(_pinned(filename="other-2.0.tar.gz"), workspace, unreachable=kind)
    assert [line.split(":")[0] for line in caught.value.detail] == ["index-url", "find-links 1", "find-links 2"]
    assert caught.value.detail[0] == "index-url: has no other-2.0.tar.gz"
    assert caught.value.hint is not None
    assert "pip config list" in caught.value.hint


def test_no_place_to_look_in_is_said(tmp_path: Path) -> None:
    workspace, _ = _workspace(tmp_path, PIP_NO_INDEX="true")
    with pytest.raises(ToolError) as caught:
        fetch(_pinned(), workspace)
    assert caught.value.detail == ("pip's configuration names no place to look in (no-index)",)


def test_a_certificate_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    workspace, _ = _workspace(tmp_path, PIP_INDEX_URL=_index(tmp_path / "index"), PIP_CERT="/no/such.pem")
    with pytest.raises(ToolError, match=r"pip's setting cert names /no/such\.pem, which cannot be used"):
        fetch(_pinned(), workspace)
