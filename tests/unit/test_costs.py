"""Expected costs: learned before shipped before estimated."""

import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.executors.base import Task
from hopperforge.executors.schedule import Waiting, take_off
from hopperforge.merging import merge_units
from hopperforge.model.machine import Need
from hopperforge.model.pack import Calm, Cost, Unit
from hopperforge.model.recipe import MergeRule
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.store.costs import CostEntry, CostTable, calm_of, estimate, learn, load_costs, switches_digest

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
    assert measured == Cost(seconds=90.0, peak_rss=6_644_723_712)
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
        ("flash_fwd_hdim64_bf16_sm90", 80.12, 6.3),
        ("flash_fwd_hdim128_bf16_sm90", 85.24, 6.3),
        ("flash_fwd_hdim128_e4m3_split_softcap_sm90", 80.978, 5.7),
        ("flash_fwd_hdim192_128_bf16_paged_sm90", 90.36, 6.3),
        ("flash_fwd_hdim64_512_bf16_sm90", 115.96, 6.3),
        ("flash_fwd_hdimall_bf16_sm90", 195.48, 11.5),
        ("flash_fwd_hdimdiff_bf16_sm90", 145.48, 8.9),
        ("flash_fwd_hdim256_fp16_softcapall_sm80", 157.48, 6.6),
        ("flash_bwd_hdim128_bf16_sm90", 119.336, 8.82),
        ("flash_prepare_scheduler", 35, 1.3),
        ("flash_fwd_combine", 60, 2.5),
        ("something_new", 85.24, 6.3),
    ],
)
def test_estimates(name: str, seconds: float, gibibytes: float) -> None:
    cost = estimate(unit(name))
    assert cost.seconds == pytest.approx(seconds)
    assert cost.peak_rss == pytest.approx(gibibytes * 2**30)


SHIPPED = load_costs(Path("/nonexistent"), Recorder()).shipped
APART = [entry for entry in SHIPPED if not entry.unit.startswith("merged/")]


@pytest.mark.parametrize("measured", APART, ids=lambda entry: entry.unit)
def test_an_estimate_lies_near_what_was_measured(measured: CostEntry) -> None:
    """The formula claims to follow the shipped measurements: seconds within a tenth, memory never below."""
    guess = estimate(Unit(path=measured.unit, arguments=()))
    assert guess.seconds == pytest.approx(measured.seconds, rel=0.1)
    assert measured.peak_rss <= guess.peak_rss


def names(dim: str, *features: str, arch: str = "sm90") -> list[Unit]:
    return [unit(f"flash_fwd_hdim{dim}{feature}_{arch}") for feature in features]


UNSPLIT = ("", "_packgqa", "_softcap", "_softcap_packgqa")
ALL = (*UNSPLIT, "_split", "_split_softcap")


@pytest.mark.parametrize(
    ("members", "seconds", "peak"),
    [
        (names("128_bf16", "", "_softcap"), 118.6, 6_909_747_200),
        (names("128_bf16", "", "_packgqa"), 121.8, 7_195_398_144),
        (names("128_bf16", "_split", "_split_softcap"), 115.1, 6_745_000_000),
        (names("128_bf16", *UNSPLIT), 178.9, 7_712_780_288),
        (names("128_bf16", *ALL), 233.6, 8_169_623_552),
        (names("128_e4m3", *ALL), 229.1, 6_639_988_736),
        (names("256_bf16", *ALL), 244.8, 7_451_009_024),
        (names("64_512_bf16", "", "_packgqa", "_softcap"), 246.1, 8_040_000_000),
        (names("128_bf16", "_softcapall", "_split_softcapall", arch="sm80"), 219.8, 8_213_450_752),
    ],
)
def test_a_merged_unit_never_seen_is_expected_from_its_sources(members: list[Unit], seconds: float, peak: int) -> None:
    """Seconds within a tenth of what was measured, memory never below and at most 1.4 GB above."""
    rule = MergeRule(name="any", units="*", vary=("split", "softcap", "packgqa"), largest=9)
    (merged,) = merge_units(members, (rule,))
    expected = CostTable(learned=(), shipped=tuple(APART)).expect(merged, CUDA)
    assert expected.seconds == pytest.approx(seconds, rel=0.1)
    assert 0 <= expected.peak_rss - peak <= 1_400_000_000


def test_a_merged_unit_and_its_sources_keep_costs_of_their_own(tmp_path: Path) -> None:
    single, other = names("128_bf16", "", "_softcap")
    (merged,) = merge_units([single, other], (MergeRule(name="any", units="*", vary=("softcap",), largest=2),))
    for which, seconds in ((single, 1.0), (merged, 7.0)):
        learn(tmp_path, unit=which, toolkit=CUDA, cost=Cost(seconds=seconds, peak_rss=10), reporter=Recorder())
    table = load_costs(tmp_path, Recorder())
    assert table.expect(merged, CUDA) == Cost(seconds=7.0, peak_rss=10)
    assert table.expect(single, CUDA) == Cost(seconds=1.0, peak_rss=10)


ANY_FEATURE = MergeRule(name="any", units="*", vary=("split", "softcap", "packgqa"), largest=9)


def test_a_merged_unit_needs_less_when_its_peak_is_over() -> None:
    (merged,) = merge_units(names("128_bf16", *UNSPLIT), (ANY_FEATURE,))
    assert calm_of(merged, Cost(seconds=200, peak_rss=8_000_000_000)) == Calm(after=60, rss=5_360_000_000)
    table = CostTable(learned=(entry(merged.path, seconds=200, peak=1000),), shipped=())
    assert table.need(merged, CUDA) == Need(peak=1000, later=670)


def test_the_peak_of_other_units_may_come_at_any_time() -> None:
    (single,) = names("128_bf16", "")
    targets = ("-gencode", "arch=compute_90a,code=sm_90a", "-gencode", "arch=compute_80,code=sm_80")
    several = [unit(f"flash_fwd_hdim128_bf16{feature}_sm90", *targets) for feature in UNSPLIT]
    (merged,) = merge_units(several, (ANY_FEATURE,))
    table = CostTable(learned=(), shipped=())
    for restless in (single, merged):
        peak = table.expect(restless, CUDA).peak_rss
        assert calm_of(restless, table.expect(restless, CUDA)) is None
        assert table.need(restless, CUDA) == Need(peak=peak, later=peak)


# Seconds from the start of twelve units of five sources, nvcc 13.0 on 16 cores, and the GB they held together.
SEEN = {16: 10.6, 48: 24.3, 64: 50.0, 80: 73.0, 97: 73.1, 113: 37.6, 129: 14.5, 193: 28.0, 273: 45.9, 480: 10.0}


def test_what_twelve_units_were_seen_to_hold_lies_below_what_is_set_aside_for_them() -> None:
    """The machine was half as fast as expected; nothing had ended yet that could have told so.

    On one a third as fast the last peak was over at 187 s.
    """
    (merged,) = merge_units(names("128_bf16", *UNSPLIT, "_split"), (ANY_FEATURE,))
    cost = CostTable(learned=(), shipped=tuple(APART)).expect(merged, CUDA)
    task = Task(name=merged.name, cost=cost, calm=calm_of(merged, cost))
    flight = take_off(Waiting(task=task, alone=False), 0.0)
    assert all(gigabytes * 1e9 <= 12 * flight.need(seconds) for seconds, gigabytes in SEEN.items())
    assert 187 < flight.calm_at < 273
    assert flight.need(273) < cost.peak_rss


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
from hopperforge.merging import merge_units
from hopperforge.model.pack import Cost, Unit
from hopperforge.model.recipe import MergeRule
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


def test_kernels_of_a_recipe_are_no_attention_units_of_upstream() -> None:
    plain = estimate(Unit(path="kernels/backward_hdim128.cu", arguments=()))
    fat = estimate(Unit(path="kernels/backward_hdim128.cu", arguments=("-gencode", "a", "-gencode", "b")))
    assert plain == Cost(seconds=60.0, peak_rss=1_000_000_000)
    assert (fat.seconds, fat.peak_rss) == (102.0, 1_000_000_000)
