"""The wheelhouse: what counts as a finished package, and what a killed run or a damaged file leaves."""

import dataclasses
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.record_zoo import GATES, REPRODUCTION, TOOLKIT, record

from hopperforge.errors import GateError, InputError, SmokeError
from hopperforge.model.record import Record
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult, VerifiedWheel
from hopperforge.report import Recorder
from hopperforge.store.wheelhouse import Wheelhouse

NAME = record().wheel.file
KEY = record().build_key
PROOF = {"gpu": "NVIDIA H200", "passed": 89, "failed": 0, "complete": True}


def _wheel(folder: Path, content: bytes = b"wheel", name: str = NAME) -> VerifiedWheel:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return VerifiedWheel(
        path=path,
        platform_tags=("manylinux_2_17_x86_64",),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        library_size=17,
        gates=GATES,
    )


def _record(wheel: VerifiedWheel, **changes: Any) -> Record:
    facts = dataclasses.replace(record().wheel, file=wheel.path.name, sha256=wheel.sha256, size=wheel.size)
    return record(wheel=facts, **changes)


def _house(folder: Path) -> tuple[Wheelhouse, Recorder]:
    reporter = Recorder()
    return Wheelhouse(folder / "house", reporter), reporter


def test_package_put_in_is_found_by_its_build_key(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    shelved = house.add(wheel, _record(wheel))
    assert shelved.path == tmp_path / "house" / NAME
    assert house.find(KEY) == shelved
    assert house.packages() == (shelved,)
    assert house.find("22" * 32) is None
    assert shelved.path.read_bytes() == b"wheel"
    assert sorted(path.name for path in (tmp_path / "house").iterdir()) == [".lock", NAME, f"{NAME}.json"]
    assert reporter.warnings == []


def test_no_wheelhouse_yet_is_an_empty_one(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    assert house.find(KEY) is None
    assert house.packages() == ()


def test_changed_wheel_counts_as_never_built(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    path = house.add(wheel, _record(wheel)).path
    path.write_bytes(b"whee!")
    assert house.find(KEY) is None
    assert house.packages() == ()
    assert reporter.warnings[0] == f"{path} is not the file its record names: it counts as never built"


def test_record_without_its_wheel_counts_as_never_built(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    path = house.add(wheel, _record(wheel)).path
    path.unlink()
    assert house.find(KEY) is None
    assert reporter.warnings == [f"{path}.json is there, its wheel is not: it counts as never built"]


def test_wheel_without_its_record_counts_for_nothing(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    _wheel(tmp_path / "house")  # what a run leaves that was killed between the two
    assert house.packages() == ()
    wheel = _wheel(tmp_path / "work", b"other")
    assert house.add(wheel, _record(wheel)).path.read_bytes() == b"other"
    assert house.find(KEY) is not None


def test_half_written_files_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    (tmp_path / "house").mkdir()
    left = tmp_path / "house" / f".{NAME}.0123abcd.part"
    left.write_bytes(b"whe")
    wheel = _wheel(tmp_path / "work")
    house.add(wheel, _record(wheel))
    assert not left.exists()


def test_rebuild_from_other_inputs_replaces_and_says_so(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    first = _wheel(tmp_path / "a")
    house.add(first, _record(first, gpu={"tflops": 600}))
    second = _wheel(tmp_path / "b", b"newer")
    shelved = house.add(second, _record(second, build_key="22" * 32))
    assert reporter.notes == [f"{NAME} replaces the package made from other inputs on 2026-11-21T07:00:00Z"]
    assert house.find(KEY) is None
    assert house.find("22" * 32) == shelved
    assert shelved.path.read_bytes() == b"newer"
    assert shelved.record.gpu is None  # the result was of other bytes


def test_a_package_of_another_toolkit_with_the_same_name_is_a_warning(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    first, second = _wheel(tmp_path / "a"), _wheel(tmp_path / "b", b"newer")
    house.add(first, _record(first))
    facts = dataclasses.replace(TOOLKIT, version=ToolkitVersion.parse("13.0+ptxas13.2"))
    house.add(second, _record(second, build_key="22" * 32, toolkit=facts))
    assert reporter.warnings == [
        (
            f"{NAME} of CUDA 13.0+ptxas13.2 replaces the package of the same name that was compiled with CUDA 13.0 on "
            "2026-11-21T07:00:00Z"
        )
    ]


def test_same_inputs_with_other_bytes_are_a_warning(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    first, second = _wheel(tmp_path / "a"), _wheel(tmp_path / "b", b"newer")
    house.add(first, _record(first))
    house.add(second, _record(second))
    assert reporter.warnings == [
        f"{NAME} came out with other bytes from the same inputs: {first.sha256} before, {second.sha256} now"
    ]


def test_same_bytes_again_keep_the_file_and_the_gpu_result(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    before = house.add(wheel, _record(wheel)).path.stat()
    house.join_gpu(PROOF, wheel.sha256)
    again = house.add(wheel, _record(wheel, created="later"))
    assert again.path.stat().st_ino == before.st_ino
    assert again.record.gpu == PROOF
    assert again.record.created == "later"
    assert reporter.warnings == []


def test_damaged_record_is_warned_of_and_stops_no_other_package(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel, other = _wheel(tmp_path / "a"), _wheel(tmp_path / "b", b"other", name=f"other-{NAME}")
    broken = Path(f"{house.add(wheel, _record(wheel)).path}.json")
    sound = house.add(other, _record(other, build_key="22" * 32))
    broken.write_bytes(broken.read_bytes()[:100])
    assert house.packages() == (sound,)
    assert house.find(KEY) is None
    assert str(broken) in reporter.warnings[0]
    assert f"hint: rm {broken} " in reporter.warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"failed": 99}, "99 tests failed"),
        ({"passed": 0}, "no test passed"),
        ({"complete": False}, "only a part of the kit was run"),
        ({"failed": None}, "tests failed"),
    ],
)
def test_gpu_results_that_prove_nothing_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    house.add(wheel, _record(wheel))
    with pytest.raises(SmokeError, match=says):
        house.join_gpu(PROOF | change, wheel.sha256)
    assert [kept.gpu for kept in house.records()] == [None]


def test_cells_served_later_join_the_record_once(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    served = house.add(wheel, _record(wheel)).record.cells
    more = dataclasses.replace(served[0], torch=TorchVersion(2, 99))
    joined = house.join_cells(wheel.sha256, [more, served[0]])
    assert joined.cells == (*served, more)
    assert house.add(wheel, _record(wheel)).record.cells == (*served, more)


def test_results_of_later_gates_replace_those_of_the_same_name(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    before = house.add(wheel, _record(wheel)).record.gates
    failed = GateResult(name="import", passed=False, detail="no")
    passed = GateResult(name="import", passed=True, detail="yes")
    assert house.join_gates(wheel.sha256, [failed]).gates == (*before, failed)
    assert house.join_gates(wheel.sha256, [passed]).gates == (*before, passed)


def test_damaged_record_is_replaced_by_a_new_build(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    path = house.add(wheel, _record(wheel)).path
    Path(f"{path}.json").write_bytes(b"{")
    house.add(wheel, _record(wheel))
    assert house.find(KEY) is not None
    assert reporter.warnings[0].endswith("it is replaced")


def test_gpu_result_joins_the_record_of_its_wheel(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel, other = _wheel(tmp_path / "a"), _wheel(tmp_path / "b", b"other", name=f"other-{NAME}")
    house.add(wheel, _record(wheel))
    house.add(other, _record(other, build_key="22" * 32))
    joined = house.join_gpu(PROOF, other.sha256)
    assert joined.gpu == PROOF
    assert [kept.gpu for kept in house.records()] == [None, PROOF]


def test_gpu_result_of_an_unknown_wheel_is_refused(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    path = house.add(wheel, _record(wheel)).path
    with pytest.raises(InputError, match=f"no package in {tmp_path / 'house'} has the sha256 {'f' * 64}"):
        house.join_gpu(PROOF, "f" * 64)
    path.write_bytes(b"whee!")
    with pytest.raises(InputError, match="no package"):
        house.join_gpu(PROOF, wheel.sha256)
    assert [kept.gpu for kept in house.records()] == [None]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"wheel": record().wheel}, "sha256 " + "ab" * 32),
        ({"gates": ()}, "gates other than the wheel's"),
        ({"gates": (*GATES[:1], GateResult(name="size", passed=False, detail="too big"))}, "gate size failed: too big"),
    ],
)
def test_record_that_does_not_prove_its_wheel_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    with pytest.raises(GateError) as caught:
        house.add(wheel, dataclasses.replace(_record(wheel), **changes))
    assert any(says in line for line in caught.value.detail)
    assert not (tmp_path / "house" / NAME).exists()


def test_wheel_without_any_gate_is_refused(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel = dataclasses.replace(_wheel(tmp_path / "work"), gates=())
    with pytest.raises(GateError):
        house.add(wheel, _record(wheel, gates=()))


def test_wheel_changed_after_verification_is_refused_and_the_old_one_kept(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    first = _wheel(tmp_path / "a")
    shelved = house.add(first, _record(first))
    second = _wheel(tmp_path / "b", b"newer")
    second.path.write_bytes(b"older")
    with pytest.raises(GateError, match="changed after it was verified"):
        house.add(second, _record(second, build_key="22" * 32))
    assert house.find(KEY) == shelved
    assert len(list((tmp_path / "house").iterdir())) == 3


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    house, reporter = _house(tmp_path)
    (tmp_path / "house").mkdir()
    holder = os.open(tmp_path / "house" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)

    class Freeing(Recorder):
        """Gives the lock up as soon as someone says that they wait for it."""

        def note(self, text: str) -> None:
            super().note(text)
            os.close(holder)

    waiting = Freeing()
    wheel = _wheel(tmp_path / "work")
    Wheelhouse(house.folder, waiting).add(wheel, _record(wheel))
    assert waiting.notes == [f"waiting for another run in {tmp_path / 'house'}"]
    assert house.find(KEY) is not None
    assert reporter.warnings == []


def test_a_rebuild_joins_the_record_and_stays_when_the_same_bytes_are_put_in_again(tmp_path: Path) -> None:
    house, _ = _house(tmp_path)
    wheel = _wheel(tmp_path / "work")
    house.add(wheel, _record(wheel, reproduced=()))
    assert house.join_reproduction(wheel.sha256, REPRODUCTION).reproduced == (REPRODUCTION,)
    assert house.add(wheel, _record(wheel, reproduced=())).record.reproduced == (REPRODUCTION,)
    other = _wheel(tmp_path / "other", b"other bytes")
    assert house.add(other, _record(other, reproduced=())).record.reproduced == ()
    with pytest.raises(InputError, match="has the sha256"):
        house.join_reproduction("00" * 32, REPRODUCTION)
