"""Logins of upload servers: where they are looked for, in which order, and that no text shows a password."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from hopperforge.errors import InputError
from hopperforge.run.credentials import Login, find_login

URL = "https://host.example:8443/team/cu128/"
SECRET = "pa55-word"  # noqa: S105 - of nobody


def find(tmp_path: Path, environ: Mapping[str, str], netrc: str = "") -> Login | None:
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    return find_login(URL, {"HOME": str(tmp_path), "PATH": str(tmp_path), **environ}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "netrc", "found"),
    [
        ({}, "", None),
        ({"UV_PUBLISH_TOKEN": "t", "UV_PUBLISH_USERNAME": "u", "UV_PUBLISH_PASSWORD": "p"}, "", ("__token__", "t")),
        (
            {"UV_PUBLISH_USERNAME": "u", "UV_PUBLISH_PASSWORD": "p"},
            "machine host.example login n password q",
            ("u", "p"),
        ),
        ({}, "machine host.example login n password q", ("n", "q")),
        ({"UV_PUBLISH_USERNAME": "n"}, "machine host.example login n password q", ("n", "q")),
        ({"UV_PUBLISH_USERNAME": "u"}, "machine host.example login n password q", None),
        ({"UV_PUBLISH_PASSWORD": "p"}, "machine other.example login n password q", None),
        ({"UV_PUBLISH_TOKEN": ""}, "default login n password q", ("n", "q")),
    ],
)
def test_the_first_place_that_has_a_login_counts(
    tmp_path: Path, environ: Mapping[str, str], netrc: str, found: tuple[str, str] | None
) -> None:
    login = find(tmp_path, environ, netrc)
    assert (login and (login.user, login.password)) == found


def test_a_netrc_that_cannot_be_read_is_named_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.netrc cannot be read") as caught:
        find(tmp_path, {}, f"machine host.example login n passwort {SECRET}")
    assert SECRET not in str(caught.value)


def test_no_text_shows_a_password() -> None:
    login = Login(user="fern", password=SECRET, source="UV_PUBLISH_PASSWORD")
    assert SECRET not in f"{login} {login!r}"
    assert login.hide(f"-p {SECRET}, Basic ZmVybjpwYTU1LXdvcmQ=, fern") == "-p ***, Basic ***, fern"
    assert Login(user="fern", password="", source="").hide("as it is") == "as it is"
