"""What bench and memory make of what was measured: words, figures, tables, files, the chart. No GPU, no torch."""

import csv
import io
import json
import math
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bench_zoo import MACHINE, PEAK, bench, left_out, row, shape

from hopperforge.node.gpu.bench import scaled
from hopperforge.node.gpu.chart import LABELS, LOOKS, chart
from hopperforge.node.gpu.clocks import Clocks, Meter, Reading, named_reasons
from hopperforge.node.gpu.command import bench_chart
from hopperforge.node.gpu.inputs import bound_of
from hopperforge.node.gpu.memory import Memory, Peak, growth
from hopperforge.node.gpu.results import (
    bench_csv,
    bench_json,
    bench_lines,
    choice_lines,
    fastest,
    memory_json,
    memory_lines,
    panel_lines,
    power_text,
)
from hopperforge.node.gpu.timing import Spread
from hopperforge.node.gpu.words import (
    BACKENDS,
    BenchWords,
    MemoryWords,
    VerifyWords,
    WordsError,
    parse_bench,
    parse_memory,
    parse_verify,
)

SVG = "{http://www.w3.org/2000/svg}"
MIB = 2**20


# --- words


def test_words_of_a_bench_make_the_grid() -> None:
    words = parse_bench(["seqlen=1024,4096", "headdim=64,128", "causal=both", "direction=both", "tokens=8192"])
    shapes = words.shapes()
    assert len(shapes) == 16
    assert {(one.seqlen, one.batch) for one in shapes} == {(1024, 8), (4096, 2)}
    assert parse_bench(["seqlen=65536"]).shapes()[0].batch == 1
    assert parse_bench(["backends=all"]) == BenchWords() == parse_bench([])


def test_words_of_memory_and_verify_install() -> None:
    assert parse_memory(["seqlen=4096,1024", "causal=off"]) == MemoryWords(seqlens=(1024, 4096), causal=False)
    assert parse_verify([]) == VerifyWords("fa3-fwd")
    found = parse_verify(["key=a.pem,b.pem", "/somewhere/x=y/w.whl", "record=r.json"])
    assert found == VerifyWords("/somewhere/x=y/w.whl", ("a.pem", "b.pem"), "r.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seqlen=abc"], 'seqlen=abc: "abc" is no whole number from 1 to 16777216'),
        (["seqlen=0"], 'seqlen=0: "0" is no whole number'),
        (["seqlen=²"], "is no whole number"),
        (["heads=1,2"], "heads= takes one number here"),
        (["dtype=bf17"], 'dtype=bf17: there is no "bf17"; perhaps you meant bf16'),
        (["backends=fa3"], "perhaps you meant fa3_fwd"),
        (["causal=maybe"], "there are on, off, both"),
        (["direction=back"], "perhaps you meant backward"),
        (["seqlens=1024"], "there is no word seqlens=; perhaps you meant seqlen"),
        (["seqlen=1024", "seqlen=2048"], "seqlen= is given twice"),
        (["1024"], '"1024" is no word of the form key=value'),
        (["out="], '"out=" is no word of the form key=value'),
    ],
)
def test_a_wrong_word_gives_a_sentence_and_a_line_that_is_right(words: list[str], said: str) -> None:
    with pytest.raises(WordsError) as caught:
        parse_bench(words)
    assert said in caught.value.sentence
    assert caught.value.detail == ()
    verb, name, *right = caught.value.hint.split()
    assert (verb, name) == ("hopperforge", "bench")
    parse_bench(right)


def test_all_wrong_words_are_said_at_once() -> None:
    with pytest.raises(WordsError) as caught:
        parse_memory(["causal=both", "dtyp=bf16", "seqlen=x"])
    assert caught.value.sentence == "3 words are wrong"
    assert len(caught.value.detail) == 3
    parse_memory(caught.value.hint.split()[2:])
    with pytest.raises(WordsError, match="one wheel or name at a time"):
        parse_verify(["fa3-fwd", "flash-attn"])


# --- figures


def test_operations_count_two_products_forward_and_five_backward() -> None:
    forward = shape(batch=1, seqlen=1024, heads=1, head_dim=64)
    assert forward.operations == 4 * 1024**2 * 64
    assert shape(batch=1, seqlen=1024, heads=1, head_dim=64, causal=True).operations == forward.operations / 2
    assert shape(batch=1, seqlen=1024, heads=1, head_dim=64, direction="backward").operations == (
        2.5 * forward.operations
    )


@given(st.lists(st.floats(0.001, 1e4), min_size=1))
def test_quartiles_stand_around_the_median(samples: list[float]) -> None:
    spread = Spread.of(samples)
    assert min(samples) <= spread.low <= spread.median <= spread.high <= max(samples)
    assert spread.count == len(samples)


def test_the_share_is_that_of_the_matmul_measured_beside() -> None:
    assert scaled(row(tflops=350), 700).of_matmul == 0.5
    assert scaled(left_out("eager", "no"), 700).of_matmul is None
    assert bench().peak == PEAK


def test_the_driver_says_what_holds_the_clock_down() -> None:
    assert named_reasons(0) == ()
    assert named_reasons(0x4 | 0x40) == ("power cap", "hardware thermal slowdown")
    assert named_reasons(0x1000) == ("reason 0x1000",)
    looks = [Reading(1980, 40, 600.0, ("idle",)), Reading(1755, 45, 700.0, ("power cap",))]
    assert Clocks.of(looks) == Clocks(1755, 1980, ("power cap",))
    assert Clocks.of([]) == Clocks(None, None, ())


class Driver:
    """Answers as the two libraries of the driver do, in the places of C's arguments."""

    def __init__(self, *, status: int = 0) -> None:
        self.status = status

    def cuInit(self, _: int) -> int:  # noqa: D102, N802
        return 0

    def cuDeviceGetPCIBusId(self, _: object, length: int, device: int) -> int:  # noqa: D102, N802
        return 0 if (length, device) == (32, 0) else 1

    def nvmlInit_v2(self) -> int:  # noqa: D102, N802
        return self.status

    def nvmlDeviceGetHandleByPciBusId_v2(self, *_: object) -> int:  # noqa: D102, N802
        return 0

    def nvmlDeviceGetClockInfo(self, _: object, kind: int, answer: object) -> int:  # noqa: D102, N802
        return self._put(answer, 1755 if kind == 1 else 0)

    def nvmlDeviceGetPowerUsage(self, _: object, answer: object) -> int:  # noqa: D102, N802
        return self._put(answer, 698500)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: object, answer: object) -> int:  # noqa: D102, N802
        return self._put(answer, 0x4)

    @staticmethod
    def _put(answer: object, value: int) -> int:
        answer._obj.value = value  # type: ignore[attr-defined]  # what ctypes.byref keeps
        return 0


def test_the_meter_reads_clock_power_and_reasons_and_knows_what_it_is_not_told() -> None:
    driver = Driver()
    meter = Meter(lambda _: driver)
    assert meter.works
    assert meter.read() == Reading(1755, None, 698.5, ("power cap",))
    assert meter.highest() is None


def test_without_a_driver_the_meter_says_so() -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    for meter in (Meter(missing), Meter(lambda _: Driver(status=9)), Meter(lambda _: object())):
        assert not meter.works
        assert meter.read() == Reading(None, None, None, ("unknown",))
        assert meter.highest() is None


# --- tables and files


def test_a_row_says_time_spread_speed_share_error_clock_and_what_holds_it() -> None:
    lines = panel_lines([row(), left_out("flash_attn_2", "has no bf16")])
    assert lines[1] == "forward, bf16, head dim 128, no mask: batch 4, length 4096, 16 heads"
    assert lines[3].split() == [
        "fa3_fwd",
        "0.9817",
        "0.9621-1.0013",
        "560.0",
        "80.0%",
        "2.0e-03",
        "1755-1980",
        "power",
        "cap",
    ]
    assert lines[4].split(maxsplit=1) == ["flash_attn_2", "has no bf16"]
    unknown = row(clocks=Clocks(None, None, ("unknown",)))
    assert panel_lines([unknown])[3].endswith("unknown  unknown")


def test_a_bench_in_which_nothing_was_timed_or_something_was_wrong_fails() -> None:
    lacking = left_out("sdpa_flash", "ran out of memory")
    assert bench(row(), lacking).sound
    assert not bench(lacking).sound
    assert not bench(row(), left_out("eager", "is wrong", error=0.3)).sound


def test_the_summary_names_peak_fastest_absent_and_wrong() -> None:
    wrong = left_out("eager", "is wrong: relative error 3.0e-01, and 1e-02 is the bound", error=0.3)
    assert wrong.wrong
    assert left_out("eager", "is wrong", error=math.nan).wrong
    assert not row(error=bound_of(shape())).wrong
    text = "\n".join(bench_lines(bench(row(), row("sdpa_cudnn", 600), wrong)))
    assert "690.0 TFLOP/s before, 700.0 after" in text
    assert "before 1980 MHz, 31 C, 118 W; throttled by idle" in text
    assert "fastest forward, bf16, head dim 128, no mask, length 4096: sdpa_cudnn" in text
    assert "here: fa3_fwd 3.0.0" in text
    assert "not here: flash_attn_2: not installed" in text
    assert "WRONG: eager, forward" in text
    assert fastest([left_out("eager", "no")]) == []


def test_a_choice_is_held_to_the_fastest_of_the_others() -> None:
    long = shape(seqlen=8192)
    rows = [
        *(row("hopper_attention", 560), row("fa3_fwd", 550), row("sdpa_cudnn", 540)),
        *(row("hopper_attention", 380, of=long), row("fa3_fwd", 300, of=long), row("sdpa_cudnn", 400, of=long)),
    ]
    assert [name for _, name in fastest(rows)] == ["fa3_fwd", "sdpa_cudnn"]
    (line,) = choice_lines(rows)
    assert line.startswith("hopper_attention: within 3% of the fastest in 1 of 2 shapes; at worst 95.0%, forward")
    assert line.endswith("no mask, length 8192")
    assert choice_lines([row()]) == choice_lines([row("hopper_attention")]) == []


def test_json_and_csv_hold_the_same_rows() -> None:
    found = bench(row(), left_out("eager", "needs more memory than there is, or so"))
    values = json.loads(json.dumps(bench_json(MACHINE, found)))
    assert values["machine"]["gpu"] == "NVIDIA H200"
    assert values["matmul"] == {"dtype": "bf16", "size": 8192, "before": 690.0, "after": 700.0}
    first, second = values["rows"]
    assert (first["tflops"], first["of_matmul"], first["throttled_by"]) == (560.0, 0.8, "power cap")
    assert second["tflops"] is None
    rows = list(csv.DictReader(io.StringIO(bench_csv(found))))
    assert [set(one) for one in rows] == [set(first), set(second)]
    assert float(rows[0]["ms"]) == first["ms"]
    assert rows[1]["reason"] == second["reason"]


def test_linear_and_quadratic_memory_are_told_apart() -> None:
    def peaks(name: str, power: int) -> list[Peak]:
        lengths = (1024, 2048, 4096)
        return [Peak(shape(seqlen=n, causal=True), name, MIB * n**power // 1024**power, None) for n in lengths]

    beyond = Peak(shape(seqlen=8192, causal=True), "eager", None, "more than there is")
    fits = Peak(shape(seqlen=8192, causal=True), "fa3_fwd", 8 * MIB, None)
    refused = Peak(shape(seqlen=1024, causal=True), "flash_attn_2", None, "has no fp32")
    memory = Memory((), (), (*peaks("fa3_fwd", 1), fits, *peaks("eager", 2), beyond, refused))
    lines = {line.split()[0]: line for line in memory_lines(memory)[3:]}
    assert lines["fa3_fwd"].split()[1:] == ["1.0", "2.0", "4.0", "8.0", "N^1.00,", "linear"]
    assert lines["eager"].endswith("-  N^2.00, quadratic; more than there is from 8192 on")
    assert lines["flash_attn_2"].endswith("has no fp32")
    assert memory_json(MACHINE, memory)["growth"] == {"forward": {"fa3_fwd": 1.0, "eager": 2.0, "flash_attn_2": None}}
    assert growth({1024: 5}) is None
    assert power_text(None) == "not known from one length"


# --- the chart


def drawn() -> tuple[ET.Element, list[tuple[str, int, float]]]:
    given_rows = [
        row(name, speed + length / 1000, of=shape(seqlen=length, causal=causal))
        for name, speed in (("fa3_fwd", 560), ("sdpa_cudnn", 540), ("eager", 60))
        for length in (1024, 16384, 4096)
        for causal in (False, True)
    ]
    text = bench_chart(MACHINE, bench(*given_rows, left_out("flash_attn_2", "not <here> & now")))
    return ET.fromstring(text), [(one.backend, one.shape.seqlen, one.tflops or 0) for one in given_rows]  # noqa: S314


def test_the_chart_is_well_formed_and_holds_every_value() -> None:
    svg, expected = drawn()
    assert svg.tag == f"{SVG}svg"
    found = [
        (series.get("data-series"), int(mark.get("data-seqlen", "")), float(mark.get("data-value", "")))
        for series in svg.iter(f"{SVG}g")
        for mark in series
        if mark.get("data-value")
    ]
    assert sorted(found) == sorted((name, length, round(speed, 1)) for name, length, speed in expected)


def test_the_chart_names_machine_axes_and_series() -> None:
    svg, _ = drawn()
    texts = [element.text or "" for element in svg.iter(f"{SVG}text")]
    whole = "\n".join(texts)
    for words in ("NVIDIA H200", "driver 580.159.04", "torch 2.11.0+cu130", "TFLOP/s", "sequence length (tokens)"):
        assert words in whole
    assert [LABELS[name] for name in ("fa3_fwd", "sdpa_cudnn", "eager")] == [t for t in texts if t in LABELS.values()]
    assert texts.count("this GPU's bf16 matmul, 700") == 2


def test_higher_is_faster_and_lengths_stand_in_order() -> None:
    svg, _ = drawn()
    lines = {one.get("data-series"): one.find(f"{SVG}polyline") for one in svg.iter(f"{SVG}g")}
    places = {
        name: [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
        for name, line in lines.items()
        if line is not None
    }
    assert all(x == sorted(x) for x in ([point[0] for point in points] for points in places.values()))
    assert all(fast[1] < slow[1] for fast, slow in zip(places["fa3_fwd"], places["eager"], strict=True))


def test_of_one_length_there_are_bars_with_their_values_above() -> None:
    rows = [row("hopper_attention", 556), row("fa3_fwd", 560), row("eager", 60), left_out("sdpa_cudnn", "no")]
    svg = ET.fromstring(bench_chart(MACHINE, bench(*rows)))  # noqa: S314
    bars = [one for one in svg.iter(f"{SVG}rect") if one.get("data-value")]
    assert [bar.get("data-value") for bar in bars] == ["556.0", "560.0", "60.0"]
    x, heights = ([float(bar.get(name, "")) for bar in bars] for name in ("x", "height"))
    assert x == sorted(x)
    assert heights[1] / heights[2] == pytest.approx(560 / 60, rel=0.01)
    assert {"556", "560", "60"} <= {element.text for element in svg.iter(f"{SVG}text")}


def test_what_chooses_is_drawn_around_what_it_chose() -> None:
    rows = [row(name, 560, of=shape(seqlen=n)) for name in ("hopper_attention", "fa3_fwd") for n in (1024, 4096)]
    svg = ET.fromstring(bench_chart(MACHINE, bench(*rows)))  # noqa: S314
    assert [one.get("data-series") for one in svg.iter(f"{SVG}g")] == ["fa3_fwd", "hopper_attention"]


def test_everything_stays_on_the_page() -> None:
    svg, _ = drawn()
    width, height = float(svg.get("width", "")), float(svg.get("height", ""))
    for element in svg.iter():
        for name, limit in (("x", width), ("y", height), ("y1", height), ("y2", height), ("cx", width)):
            assert 0 <= float(element.get(name, "0")) <= limit


def test_a_chart_of_names_that_are_markup_and_of_nothing_timed() -> None:
    text = chart("<&>", '"', [left_out("eager", "no")], 700.0)
    assert ET.fromstring(text).findtext(f"{SVG}title") == '<&>. "'  # noqa: S314


def test_series_differ_in_colour_and_in_light() -> None:
    assert set(LOOKS) == set(BACKENDS) == set(LABELS)
    assert len(set(LOOKS.values())) == len(BACKENDS)

    def light(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)

    for colour, _ in LOOKS.values():  # on white, as WCAG counts contrast
        assert 1.05 / (light(colour) + 0.05) > 2
    same = [(one, other) for one, other in combinations(LOOKS.values(), 2) if one[0] == other[0]]
    assert same == []
