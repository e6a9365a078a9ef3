"""Expected costs: learned before shipped before estimated."""

import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.model.pack import Cost, Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.store.costs import CostEntry, CostTable, estimate, learn, load_costs, switches_digest

CUDA = ToolkitVersion.parse("13.0")
HDIM128 = "hopper/instantiations/flash_fwd_hdim128_bf16_sm90.cu"


def unit(name: str, *arguments: str) -> Unit:
    return Unit(path=f"hopper/instantiations/{name}.cu", arguments=arguments)


def entry(path: str, *, seconds: float, peak: int, toolkit: str = "13.0", switches: str | None = None) -> CostEntry:
    return CostEntry(toolkit=toolkit, unit=path, switches=switches, seconds=seconds, peak_rss=peak)


def test_the_shipped_table_is_read_from_the_package(tmp_path: Path) -> None:
    table = load_costs(tmp_path, Recorder())
    assert table.learned == ()
    measured = table.expect(Unit(path=HDIM128, arguments=()), CUDA)
    assert measured == Cost(seconds=90.0, peak_rss=5_690_831_667)
    assert table.expect(Unit(path="hopper/flash_prepare_scheduler.cu", arguments=()), CUDA).seconds == 35


def test_switches_are_the_defines_in_any_order() -> None:
    first = Unit(path="a", arguments=("-DB", "-O3", "-DA=1"))
    assert switches_digest(first) == switches_digest(Unit(path="b", arguments=("-DA=1", "-O0", "-DB")))
    assert switches_digest(first) != switches_digest(Unit(path="a", arguments=("-DB", "-O3")))


def test_what_was_learned_exactly_wins() -> None:
    mine = Unit(path="hopper/a.cu", arguments=("-DX",))
    table = CostTable(
        learned=(
            entry("hopper/a.cu", seconds=99, peak=99, switches="other"),
            entry("hopper/a.cu", seconds=5, peak=6, switches=switches_digest(mine)),
        ),
        shipped=(entry("hopper/a.cu", seconds=1, peak=1),),
    )
    assert table.expect(mine, CUDA) == Cost(seconds=5, peak_rss=6)
    assert table.expect(mine, ToolkitVersion.parse("12.9")) == Cost(seconds=99, peak_rss=99)


def test_the_largest_of_what_is_near_is_expected() -> None:
    shipped = (entry("hopper/a.cu", seconds=1, peak=9), entry("hopper/a.cu", seconds=2, peak=8, toolkit="12.9"))
    wanted = Unit(path="hopper/a.cu", arguments=())
    assert CostTable(learned=(), shipped=shipped).expect(wanted, CUDA) == Cost(seconds=2, peak_rss=9)


def test_a_unit_never_seen_is_estimated() -> None:
    wanted = unit("flash_fwd_hdim96_bf16_sm90")
    assert CostTable(learned=(), shipped=()).expect(wanted, CUDA) == estimate(wanted)


@pytest.mark.parametrize(
    ("name", "seconds", "gibibytes"),
    [
        ("flash_fwd_hdim64_bf16_sm90", 79.6, 5.148),
        ("flash_fwd_hdim128_bf16_sm90", 89.2, 5.596),
        ("flash_fwd_hdim128_e4m3_split_softcap_sm90", 89.2, 5.596),
        ("flash_fwd_hdim192_128_bf16_paged_sm90", 98.8, 6.044),
        ("flash_fwd_hdim64_512_bf16_sm90", 146.8, 8.284),
        ("flash_fwd_hdimall_bf16_sm90", 208.4, 11.692),
        ("flash_fwd_hdimdiff_bf16_sm90", 158.4, 9.092),
        ("flash_fwd_hdim256_fp16_softcapall_sm80", 133.4, 7.792),
        ("flash_bwd_hdim128_bf16_sm90", 124.88, 7.8344),
        ("flash_prepare_scheduler", 35, 1.3),
        ("flash_fwd_combine", 60, 2.5),
        ("something_new", 89.2, 5.596),
    ],
)
def test_estimates(name: str, seconds: float, gibibytes: float) -> None:
    cost = estimate(unit(name))
    assert cost.seconds == pytest.approx(seconds)
    assert cost.peak_rss == pytest.approx(gibibytes * 2**30)


def test_an_estimate_lies_near_what_was_measured() -> None:
    """The formula claims to follow the shipped measurements: seconds within a tenth, memory never below."""
    for measured in load_costs(Path("/nonexistent"), Recorder()).shipped:
        guess = estimate(Unit(path=measured.unit, arguments=()))
        assert guess.seconds == pytest.approx(measured.seconds, rel=0.1)
        assert measured.peak_rss <= guess.peak_rss


def test_a_second_target_takes_more_time_and_no_more_memory() -> None:
    one = ("-gencode", "arch=compute_90a,code=sm_90a")
    single = estimate(unit("flash_fwd_combine", *one))
    double = estimate(unit("flash_fwd_combine", *one, "-gencode", "arch=compute_80,code=sm_80"))
    assert double.seconds == pytest.approx(1.7 * single.seconds)
    assert double.peak_rss == single.peak_rss


def test_learning_replaces_the_same_and_keeps_the_rest(tmp_path: Path) -> None:
    reporter = Recorder()
    plain, other = unit("a", "-DX"), unit("a", "-DY")
    for which, seconds in ((plain, 1.0), (other, 2.0), (plain, 3.0)):
        learn(tmp_path, unit=which, toolkit=CUDA, cost=Cost(seconds=seconds, peak_rss=10), reporter=reporter)
    table = load_costs(tmp_path, reporter)
    assert len(table.learned) == 2
    assert table.expect(plain, CUDA) == Cost(seconds=3.0, peak_rss=10)
    assert table.expect(other, CUDA) == Cost(seconds=2.0, peak_rss=10)
    assert reporter.warnings == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2, "entries": []}', '{"format": 1, "entries": [1]}'])
def test_a_damaged_learned_table_is_a_warning_and_learned_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "costs.json").write_text(text, encoding="utf-8")
    reporter = Recorder()
    assert load_costs(tmp_path, reporter).learned == ()
    assert "is not a cost table" in reporter.warnings[0]
    learn(tmp_path, unit=unit("a"), toolkit=CUDA, cost=Cost(seconds=1, peak_rss=1), reporter=reporter)
    assert len(load_costs(tmp_path, Recorder()).learned) == 1


LEARN_TEN = """
import sys
from pathlib import Path
from hopperforge.model.pack import Cost, Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.store.costs import learn
for number in range(10):
    unit = Unit(path=f"{sys.argv[2]}{number}.cu", arguments=())
    cost = Cost(seconds=1, peak_rss=1)
    learn(Path(sys.argv[1]), unit=unit, toolkit=ToolkitVersion.parse('13.0'), cost=cost, reporter=Recorder())
"""


def test_two_processes_learn_without_losing_anything(tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", LEARN_TEN, str(tmp_path), name]) for name in "ab"]
    assert [child.wait() for child in children] == [0, 0]
    assert len(load_costs(tmp_path, Recorder()).learned) == 20
