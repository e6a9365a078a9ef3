"""Why pip failed: what it said decides, and a full disk is told from an index that has nothing."""

from pathlib import Path

import pytest

from hopperforge.errors import StorageError, ToolError
from hopperforge.stages.audit_tools import Answer
from hopperforge.stages.pip_run import refuse_full_disk, require_framework

FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
NOTHING = "ERROR: No matching distribution found for torch==2.99"


def _answer(*lines: str, status: int = 1) -> Answer:
    return Answer(status=status, lines=lines, log=Path("/logs/pip.log"))


@pytest.mark.parametrize("line", [FULL, "OSError: [Errno 122] Disk quota exceeded: 'torch/lib'"])
def test_a_full_disk_is_said_with_its_folder(line: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"^the disk that holds {tmp_path} is full") as caught:
        refuse_full_disk(_answer(line), tmp_path)
    assert line in caught.value.detail
    assert "log: /logs/pip.log" in caught.value.detail
    assert "df -h" in str(caught.value.hint)


@pytest.mark.parametrize("answer", [_answer(NOTHING), _answer(FULL, status=0)])
def test_what_is_not_a_full_disk_passes(answer: Answer, tmp_path: Path) -> None:
    refuse_full_disk(answer, tmp_path)


def test_an_index_that_lacks_the_framework_is_asked_for_in_the_hint() -> None:
    with pytest.raises(ToolError, match=r"^torch==2\.99 cannot be installed for Python 3\.12") as caught:
        require_framework(_answer(NOTHING), wanted=("torch==2.99",), where="Python 3.12")
    assert str(caught.value.hint).endswith("-m pip download --no-deps 'torch==2.99'   # is the index reachable?")
    require_framework(_answer(status=0), wanted=("torch==2.99",), where="Python 3.12")
