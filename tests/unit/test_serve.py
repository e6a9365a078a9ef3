"""Which file answers a request, with which headers, and what is refused; the server is in tests/integration."""

import os
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from werkzeug.test import Client, TestResponse

from hopperforge.cli import run_command
from hopperforge.errors import InputError
from hopperforge.run.serve import SIMPLE_JSON, StaticSite, address, find_file, listen

WHEEL = "pool/fa3-fwd/fa3_fwd-3.0.0+cu124-cp39-abi3-manylinux_2_17_x86_64.whl"
BYTES = bytes(range(256)) * 8
PIP_ACCEPTS = f"{SIMPLE_JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A small index, and beside it a file that is nobody's business."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "index"
    for name, text in {
        "index.html": "<title>people</title>",
        "packages.json": "{}",
        "doctor.py": "print()",
        "cu124/torch2.9/constraints.txt": "",
        "cu124/simple/fa3-fwd/index.html": "<title>pip</title>",
        "cu124/simple/fa3-fwd/index.json": '{"name": "fa3-fwd"}',
        f"{WHEEL}.metadata": "Name: fa3_fwd",
        f"{WHEEL}.json": "{}",
        ".lock": "",
        ".hidden/index.html": "hidden",
        "empty/.keep": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / WHEEL).write_bytes(BYTES)
    return folder


class Reader(Client):
    """A client that reads each answer to its end and closes it, as a server does."""

    def open(self, *args: Any, **more: Any) -> TestResponse:
        """Open and read."""
        return super().open(*args, buffered=True, **more)


def client(folder: Path, token: str | None = None, log: list[str] | None = None) -> Client:
    return Reader(StaticSite(folder, token=token, log=(log if log is not None else []).append))


def get(folder: Path, path: str, **headers: str) -> TestResponse:
    return client(folder).get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_files_are_sent_with_their_types(index: Path) -> None:
    types = {
        "/": "text/html; charset=utf-8",
        "/packages.json": "application/json",
        "/cu124/torch2.9/constraints.txt": "text/plain; charset=utf-8",
        "/doctor.py": "text/x-python; charset=utf-8",
        f"/{WHEEL.replace('+', '%2B')}": "application/octet-stream",
        f"/{WHEEL.replace('+', '%2B')}.metadata": "text/plain; charset=utf-8",
        f"/{WHEEL.replace('+', '%2B')}.json": "application/json",
        "/cu124/simple/fa3-fwd/index.json": SIMPLE_JSON,
    }
    for path, mimetype in types.items():
        response = get(index, path)
        assert (response.status_code, response.headers["Content-Type"]) == (200, mimetype), path
    assert get(index, f"/{WHEEL}").data == BYTES


def test_every_answer_forbids_what_a_page_does_not_need(index: Path) -> None:
    for path in ("/", "/nothing", f"/{WHEEL}"):
        headers = get(index, path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (PIP_ACCEPTS, SIMPLE_JSON),
        ("application/vnd.pypi.simple.latest+json", SIMPLE_JSON),
        ("application/vnd.pypi.simple.v1+html, text/html; q=0.1", "application/vnd.pypi.simple.v1+html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("", "text/html; charset=utf-8"),
        ("image/png", "text/html; charset=utf-8"),
        (f"{SIMPLE_JSON}; q=0, text/html", "text/html; charset=utf-8"),
    ],
)
def test_a_projects_page_comes_in_the_form_asked_for(index: Path, accept: str, mimetype: str) -> None:
    response = get(index, "/cu124/simple/fa3-fwd/", Accept=accept)
    assert response.headers["Content-Type"] == mimetype
    assert response.headers["Vary"] == "Accept"
    assert response.data.startswith(b"{" if "json" in mimetype else b"<title>pip")


def test_a_page_of_one_form_does_not_vary(index: Path) -> None:
    response = get(index, "/", Accept=PIP_ACCEPTS)
    assert response.data == b"<title>people</title>"
    assert "Vary" not in response.headers


def test_head_has_the_headers_and_no_body(index: Path) -> None:
    response = client(index).head(f"/{WHEEL}")
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["Content-Length"] == "2048"
    assert response.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/2048", BYTES[:4]),
        ("bytes=2000-", 206, "bytes 2000-2047/2048", BYTES[2000:]),
        ("bytes=-5", 206, "bytes 2043-2047/2048", BYTES[-5:]),
        ("bytes=2040-9999", 206, "bytes 2040-2047/2048", BYTES[2040:]),
        ("bytes=2048-", 416, "bytes */2048", None),
        ("bytes=0-1,5-6", 200, None, BYTES),
        ("bytes=5-1", 416, "bytes */2048", None),
        ("lines=1-2", 416, "bytes */2048", None),
    ],
)
def test_ranges(index: Path, asked: str, status: int, content_range: str | None, body: bytes | None) -> None:
    response = get(index, f"/{WHEEL}", Range=asked)
    assert (response.status_code, response.headers.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert response.data == body
        assert response.headers["Content-Length"] == str(len(body))


def test_what_has_not_changed_is_not_sent_again(index: Path) -> None:
    first = get(index, f"/{WHEEL}")
    again = get(index, f"/{WHEEL}", If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert get(index, f"/{WHEEL}", If_Modified_Since=first.headers["Last-Modified"]).status_code == 304
    assert get(index, f"/{WHEEL}", If_None_Match='"other"').status_code == 200


def test_a_range_of_a_file_that_was_replaced_is_the_whole_new_file(index: Path) -> None:
    old = get(index, "/packages.json").headers["ETag"]
    new = index / ".packages.json.new"
    new.write_text("{ }")
    new.replace(index / "packages.json")
    response = get(index, "/packages.json", Range="bytes=1-", If_Range=old)
    assert (response.status_code, response.data) == (200, b"{ }")
    assert get(index, "/packages.json", If_None_Match=old).status_code == 200


def test_only_files_that_never_change_are_kept_without_asking(index: Path) -> None:
    forever = "public, max-age=31536000, immutable"
    caching = {
        f"/{WHEEL}": forever,
        f"/{WHEEL}.metadata": forever,
        f"/{WHEEL}.json": "no-cache",
        "/": "no-cache",
        "/cu124/simple/fa3-fwd/": "no-cache",
    }
    assert {path: get(index, path).headers["Cache-Control"] for path in caching} == caching


def test_nothing_can_be_written(index: Path) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        response = client(index).open("/packages.json", method=method)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert (index / "packages.json").read_text() == "{}"


OUTSIDE = (
    "/../secret.txt",
    "/cu124/../../secret.txt",
    "/cu124/simple/../../packages.json",
    "//../secret.txt",
    "/./packages.json",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/cu124%2f..%2f..%2fsecret.txt",
    "/out/secret.txt",
    "/out",
    "/linked.txt",
    "/linked/",
    "/linked/index.html",
    "/loop",
    "/loop/",
    "/.lock",
    "/.hidden/",
    "/.hidden/index.html",
    "/empty/.keep",
    "/empty/",
    "/pool/",
    "/pool/fa3-fwd/",
    "/packages.json/",
    "/pipe",
    "/packages.json%00.html",
    "/%ff%fe",
    "/" + "a" * 5000,
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_what_is_not_published_is_not_there(index: Path, path: str) -> None:
    (index / "out").symlink_to(index.parent)
    (index / "linked.txt").symlink_to(index.parent / "secret.txt")
    (index / "loop").symlink_to("loop")
    (index / "linked").mkdir()
    (index / "linked" / "index.html").symlink_to(index.parent / "secret.txt")
    os.mkfifo(index / "pipe")
    environ = {"PATH_INFO": _path_info(path)}
    response = client(index).get("/", environ_overrides=environ)
    assert response.status_code == 404
    assert b"secret" not in response.data


def _path_info(path: str) -> str:
    """Decode a path as a WSGI server does."""
    return unquote_to_bytes(path).decode("latin-1")


def test_links_within_the_folder_and_to_the_folder_are_followed(index: Path) -> None:
    (index / "latest").symlink_to("cu124")
    (index.parent / "current").symlink_to(index)
    assert get(index.parent / "current", "/latest/simple/fa3-fwd/").data == b"<title>pip</title>"


def test_a_folder_that_is_replaced_is_served_anew(index: Path) -> None:
    current = index.parent / "current"
    current.symlink_to(index)
    site = client(current)
    assert site.get("/packages.json").data == b"{}"
    other = index.parent / "other"
    other.mkdir()
    (other / "packages.json").write_text("[]")
    (index.parent / "new").symlink_to(other)
    (index.parent / "new").replace(current)
    assert site.get("/packages.json").data == b"[]"


def test_a_page_without_its_slash_is_one_relative_step_away(index: Path) -> None:
    response = get(index, "/cu124/simple/fa3-fwd")
    assert (response.status_code, response.headers["Location"]) == (308, "./fa3-fwd/")
    (index / "a:b %").mkdir()
    assert find_file(index, "/a:b %", "") == "./a%3Ab%20%25/"
    assert find_file(index, "//cu124", "") == "./cu124/"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer s3cret-token", 200),
        ("bearer s3cret-token", 200),
        ("Bearer s3cret-toke", 401),
        ("Bearer", 401),
        ("Basic " + b64encode(b"anyone:s3cret-token").decode(), 200),
        ("Basic " + b64encode(b":s3cret-token").decode(), 200),
        ("Basic " + b64encode(b"s3cret-token:").decode(), 401),
        ("Basic " + b64encode("anyone:s3cret-tok\u00e9n".encode()).decode(), 401),
        ("Basic !!!", 401),
        ('Digest username="x", response="s3cret-token"', 401),
        ("s3cret-token", 401),
    ],
)
def test_a_token_is_asked_for(index: Path, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = client(index, token="s3cret-token").get("/packages.json", headers=headers)  # noqa: S106 - a test's
    assert response.status_code == status
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Basic ")
        assert response.data == b"401: this index asks for a token\n"
    else:
        assert response.headers["Cache-Control"] == "private, no-cache"


def test_whether_something_is_there_is_not_told_without_the_token(index: Path) -> None:
    site = client(index, token="s3cret-token")  # noqa: S106 - a test's
    assert {site.get(path).status_code for path in ("/", "/nothing", "/cu124")} == {401}


def test_the_log_has_a_line_for_each_request_and_no_token(index: Path) -> None:
    log: list[str] = []
    site = client(index, token="s3cret-token", log=log)  # noqa: S106 - a test's
    caller = {"REMOTE_ADDR": "192.0.2.1"}
    site.get("/packages.json", headers={"Authorization": "Bearer s3cret-token"}, environ_base=caller)
    site.get("/a%0Ab", environ_base=caller)
    assert log == ["192.0.2.1 GET /packages.json 200", "192.0.2.1 GET /a%0Ab 401"]


def test_listening_where_someone_listens_is_an_error() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="Address already in use") as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert caught.value.hint is not None


def test_listening_on_an_impossible_host_is_an_error() -> None:
    with pytest.raises(InputError, match="cannot be listened on"):
        listen("a" * 80, 0)


def test_the_address_is_one_to_type() -> None:
    with listen("127.0.0.1", 0) as here, listen("0.0.0.0", 0) as everywhere:  # noqa: S104 - the case
        assert address(here) == f"http://127.0.0.1:{here.getsockname()[1]}/"
        assert "0.0.0.0" not in address(everywhere)  # noqa: S104 - the case


@pytest.fixture
def in_project(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where a command finds the project, without a token."""
    monkeypatch.chdir(project_root)
    monkeypatch.delenv("HOPPERFORGE_SERVE_TOKEN", raising=False)


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("port=70000", '"70000" is no port'),
        ("port=-1", '"-1" is no port'),
        ("colour=red", "unknown word colour=red"),
        ("host=" + "a" * 80, "cannot be listened on"),
    ],
)
def test_wrong_words_are_refused(index: Path, capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    assert run_command(["serve", f"folder={index}", word]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("in_project")
def test_a_folder_that_is_no_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["serve", f"folder={tmp_path}"]) == 2
    assert f"{tmp_path} is no published index: it has no index.html" in capsys.readouterr().err


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("token", ["", " ", "s3cret ", "s3cr\u00e9t"])
def test_a_token_that_would_not_do_is_refused_and_not_shown(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    monkeypatch.setenv("HOPPERFORGE_SERVE_TOKEN", token)
    assert run_command(["serve", f"folder={index}"]) == 2
    error = capsys.readouterr().err
    assert "HOPPERFORGE_SERVE_TOKEN is set, but it is empty" in error
    assert "s3cr" not in error
