"""How bench and memory measure, on a GPU that is a clock: what is timed, who takes turns, who is left out and why."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bench_zoo import shape
from tests.unit.gpu_zoo import FORWARD_MS, MATMUL_MS, Gpu, OutOfMemoryError, Tensor

from hopperforge.node.gpu import memory
from hopperforge.node.gpu.backends import Absent, Backend, find_backends
from hopperforge.node.gpu.bench import MATMUL, NO_MEMORY, _Contender, _Contest, _row
from hopperforge.node.gpu.clocks import Meter
from hopperforge.node.gpu.timing import Task, Timer, bundle_ms
from hopperforge.node.gpu.words import BenchWords, Shape


@pytest.mark.parametrize(
    ("package", "dtypes", "backward"),
    [
        ("", ("bf16", "fp16", "fp8"), False),  # the published one, which does not say what it was built from
        ("def build_info(): return {'switches': ['DISABLE_FP8']}", ("bf16", "fp16"), True),
        ("def build_info(): return {'switches': ['DISABLE_BACKWARD', 'DISABLE_FP16']}", ("bf16", "fp8"), False),
    ],
)
def test_an_installed_package_says_what_it_has(
    package: str, dtypes: tuple[str, ...], backward: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fa3_fwd.py").write_text(package)
    (tmp_path / "fa3_fwd_interface.py").write_text("def flash_attn_func(q, k, v, causal): return q + v, causal\n")
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10\\nand more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("fa3_fwd", "fa3_fwd_interface", "flash_attn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (found,), absent = find_backends(None, ("fa3_fwd", "flash_attn_2", "hopper_attention"))
    assert (found.dtypes, found.backward, found.version) == (dtypes, backward, "unknown")
    assert found.call(1, 2, 3, True) == 4  # noqa: FBT003 - as bench calls it
    assert absent == (
        Absent("flash_attn_2", "undefined symbol: _ZN3c10"),
        Absent("hopper_attention", "not installed: there is no module hopper_attention"),
    )
    for name in ("fa3_fwd", "fa3_fwd_interface"):
        monkeypatch.delitem(sys.modules, name)


def no_library(name: str) -> Any:
    raise OSError(name)


def contest(gpu: Gpu, **words: Any) -> _Contest:
    return _Contest(gpu, BenchWords(**words), Meter(no_library))


def held(gpu: Gpu, *backends: Backend, of: Shape | None = None, **words: Any) -> list[_Contender]:
    return list(contest(gpu, **words).held(of or shape(), backends))


def test_only_the_call_is_timed_and_neither_the_flood_nor_the_head_start() -> None:
    gpu = Gpu()
    timer = Timer(gpu, cold=True)
    task = Task(lambda _: gpu.spend(3.0), lambda: gpu.spend(50.0))
    assert timer.turn(task, 4, queueing=0.001) == [3.0] * 4
    assert timer.warm_up(task)[0] == 3.0
    begun = gpu.now
    assert Timer(gpu, cold=False).turn(task, 1, 0.0) == [3.0]
    assert gpu.now - begun == 53.0
    assert bundle_ms(gpu, lambda: gpu.spend(3.0), 5) == 3.0


def test_the_queue_is_given_a_head_start_that_is_bounded() -> None:
    gpu = Gpu()
    timer = Timer(gpu, cold=False)
    timer.turn(Task(lambda _: None), 10, queueing=0.001)
    assert gpu.now == pytest.approx(20.0)  # 10 ms of a clock of 2 GHz, as cycles / 1e6
    timer.turn(Task(lambda _: None), 1000, queueing=1.0)
    assert gpu.now == pytest.approx(120.0)


def test_implementations_take_turns_and_the_order_moves_on() -> None:
    gpu = Gpu()
    found = held(gpu, gpu.backend("a", 1.0), gpu.backend("b", 2.0), gpu.backend("c", 4.0), rounds=3, samples=2)
    # the check and two that warm up of each come first
    assert gpu.turns == [*"aaa", *"bbb", *"ccc", *"aabbcc", *"bbccaa", *"ccaabb"]
    assert [one.times for one in found] == [[1.0] * 6, [2.0] * 6, [4.0] * 6]
    assert [len(one.readings) for one in found] == [3, 3, 3]
    row = _row(shape(), found[1], 100.0)
    assert row.tflops == pytest.approx(shape().operations / 2e9)
    assert row.of_matmul == pytest.approx(shape().operations / 2e9 / 100)


def test_what_is_slow_gets_fewer_samples() -> None:
    gpu = Gpu()
    fast, slow = held(gpu, gpu.backend("fast", 10.0), gpu.backend("slow", 400.0), rounds=2, samples=7)
    assert (len(fast.times), len(slow.times)) == (14, 2)


def test_of_a_backward_pass_the_forward_pass_is_not_timed() -> None:
    gpu = Gpu()
    (one,) = held(gpu, gpu.backend("a", FORWARD_MS, backward_ms=2.0), of=shape(direction="backward"), rounds=1)
    assert one.times == [2.0] * 7


def test_what_is_wrong_fails_or_lacks_something_is_left_out_with_the_reason() -> None:
    gpu = Gpu()
    rows = [
        _row(shape(), one, 1.0)
        for one in held(
            gpu,
            gpu.backend("good", 1.0),
            gpu.backend("wrong", 1.0, error=0.5),
            gpu.backend("nan", 1.0, error=float("nan")),
            gpu.backend("refuses", 1.0, fails=RuntimeError("no kernel for this\nand more")),
            gpu.backend("large", 1.0, fails=OutOfMemoryError("2 GiB"), after=1),
            gpu.backend("dies", 1.0, fails=ValueError("later"), after=5),
            rounds=2,
            samples=2,
        )
    ]
    assert {row.backend: row.reason for row in rows} == {
        "good": None,
        "wrong": "is wrong: relative error 5.0e-01, and 1e-02 is the bound",
        "nan": "is wrong: relative error nan, and 1e-02 is the bound",
        "refuses": "no kernel for this",
        "large": NO_MEMORY,
        "dies": "later",
    }
    assert {row.backend for row in rows if row.wrong} == {"wrong", "nan"}
    assert {row.backend for row in rows if row.tflops is not None} == {"good"}


def test_a_dtype_or_a_pass_that_it_has_not_is_never_tried() -> None:
    gpu = Gpu()
    (one,) = held(gpu, gpu.backend("a", 1.0), of=shape(dtype="fp32"))
    assert one.reason == "has no fp32"
    (one,) = held(gpu, gpu.backend("a", 1.0), of=shape(direction="backward"))
    assert one.reason == "has no backward pass"
    assert gpu.turns == []


def test_an_error_is_looked_at_once_for_all_lengths() -> None:
    gpu = Gpu()
    both = contest(gpu, rounds=1, samples=1)
    backend = gpu.backend("a", 1.0)
    both.held(shape(seqlen=1024), [backend])
    assert len(gpu.turns) == 1 + 2 + 1
    both.held(shape(seqlen=4096), [backend])
    assert len(gpu.turns) == 4 + 2 + 1


def test_inputs_that_do_not_fit_are_said_of_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()

    def full(*_: object, **__: object) -> Tensor:
        raise OutOfMemoryError("80 GiB")

    monkeypatch.setattr(gpu, "randn", full)
    assert [one.reason for one in held(gpu, gpu.backend("a", 1.0), gpu.backend("b", 1.0))] == [NO_MEMORY] * 2


def test_the_peak_of_matmul_is_that_of_one_product() -> None:
    assert contest(Gpu()).matmul() == pytest.approx(2 * MATMUL**3 / MATMUL_MS / 1e9)


def test_memory_is_the_peak_beyond_the_inputs() -> None:
    gpu = Gpu()
    linear = gpu.backend("a", 1.0, size=lambda seqlen: 10 * seqlen)
    assert memory._peak(gpu, linear, shape()).bytes == 2560
    large = gpu.backend("b", 1.0, fails=OutOfMemoryError("80 GiB"))
    assert memory._peak(gpu, large, shape()).reason == memory.NO_MEMORY
    refuses = gpu.backend("c", 1.0, fails=RuntimeError("no kernel\nfor this"))
    assert memory._peak(gpu, refuses, shape()).reason == "no kernel"
    assert memory._peak(gpu, linear, shape(direction="backward")).reason == "has no backward pass"
