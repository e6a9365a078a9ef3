"""Publishing to an upload server: words that do not go with one, and words that go with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import InputError
from hopperforge.model.versions import PythonVersion
from hopperforge.verbs import Call
from hopperforge.verbs_index import publish

SERVER = "to=https://host/team/cu128"


def call(*words: str, project: Path, tmp_path: Path, allow_unproven: bool = False) -> Call:
    return Call(
        words=words,
        as_json=False,
        workspace=replace(zoo.workspace(tmp_path), project=project),
        python=PythonVersion(3, 12),
        platform="linux_x86_64",
        now=lambda: "2026-11-21T07:00:00+00:00",
        answer=print,
        allow_unproven=allow_unproven,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("yank=a.whl", "reason=slow"), "reason= is for an index in a folder or a bucket"),
        (("from=/srv/staging",), "from= is for an index in a folder or a bucket"),
        (("torch=2.6",), "torch= says for whom an upload index is together with cuda="),
        (("cuda=12",), "'12' is not a CUDA version"),
        (("cuda=12.8", "torch=2"), "'2' is not a torch version"),
        (("check=ftp://host/",), "ftp://host/ is not the address of a server"),
        (("check=https://me:secret@host/",), "a server is named without user and password"),
    ],
)
def test_words_that_do_not_go_together(project_root: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        publish(call(SERVER, *words, project=project_root, tmp_path=tmp_path))
    assert "secret" not in str(caught.value)


def test_an_unproven_package_is_never_for_an_upload_server(project_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--allow-unproven is for an index of our own"):
        publish(call(SERVER, project=project_root, tmp_path=tmp_path, allow_unproven=True))


def test_an_index_of_our_own_has_a_page_for_each_cuda(project_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cuda= is for upload servers"):
        publish(call(f"to={tmp_path}/index", "cuda=12.8", project=project_root, tmp_path=tmp_path))
