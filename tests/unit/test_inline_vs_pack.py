"""The pure parts of the benchmark of a pack against upstream's own build; ninja itself runs, on a compiler of ours."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import ninja
import pytest
from benchmarks.inline_vs_pack import (
    FORMULA,
    INLINE,
    PACK,
    Share,
    Taken,
    at_pace,
    comparison,
    compile_inline,
    compile_merged,
    formula_jobs,
    ninja_rules,
    parse,
    parse_cores,
    read_log,
    read_taken,
    require_same,
    share_of_machine,
    sources_of,
    upstream_words,
    write_taken,
)
from benchmarks.merge_groups import Stand
from tests.unit.unit_zoo import ROOT

from hopperforge.config.project import load_project
from hopperforge.model.pack import Unit
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.store.costs import CostTable

COMPRESS = ("--compress-mode=size",)


def taken(
    way: str, *, wall: float = 100, jobs: int = 16, cpu: float = 800, seconds: dict[str, float] | None = None
) -> Taken:
    each = seconds or {}
    return Taken(way=way, cores=16, jobs=jobs, wall=wall, cpu=cpu, sources=("a", "b", "c"), seconds=each)


def unit(name: str, *words: str) -> Unit:
    return Unit(path=f"hopper/{name}.cu", arguments=(*words, *COMPRESS))


def test_upstream_words_are_ours_without_what_makes_objects_small() -> None:
    assert upstream_words(unit("a", "-Ihopper", "-O1", "-DX"), COMPRESS) == ("-Ihopper", "-O3", "-DX")
    assert upstream_words(unit("a", "-O1"), ()) == ("-O3", *COMPRESS)
    with pytest.raises(SystemExit, match="the words of a do not end in --compress-mode=size"):
        upstream_words(Unit(path="hopper/a.cu", arguments=("-O1",)), COMPRESS)


COMPILER = """#!/bin/sh
test "$#" -eq 6 || exit 9
printf '%s\\n' "$@" > "$6"
"""


def test_ninja_compiles_each_source_by_the_rules_and_its_log_is_read(tmp_path: Path) -> None:
    """Words go through ninja and a shell, and arrive as they were."""
    script = tmp_path / "my compiler"
    script.write_text(COMPILER, encoding="utf-8")
    script.chmod(0o755)
    (tmp_path / "hopper").mkdir()
    units = [unit(name, "-DMONEY=$HOME", "-DTEXT=two words") for name in "ab"]
    for one in units:
        (tmp_path / one.path).touch()
    rules = ninja_rules(units, [str(script)], COMPRESS, 1)
    (tmp_path / "build.ninja").write_text(rules, encoding="utf-8")
    subprocess.run([Path(ninja.BIN_DIR) / "ninja"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "a.o").read_text("utf-8").splitlines() == [
        *("-DMONEY=$HOME", "-DTEXT=two words", "-c", "hopper/a.cu", "-o", "a.o")
    ]
    seconds = read_log(tmp_path / ".ninja_log")
    assert seconds.keys() == {"a", "b"}
    assert all(0 <= each < 60 for each in seconds.values())
    assert read_log(tmp_path / "none") == {}


def test_threads_are_told_where_there_are_several() -> None:
    assert "command = nvcc --threads 4 $words -c $in -o $out\n" in ninja_rules([], ["nvcc"], (), 4)
    assert "--threads" not in ninja_rules([], ["nvcc"], (), 1)


@pytest.mark.parametrize(
    ("cores", "gigabytes", "jobs"), [(16, 126, 4), (16, 30, 2), (64, 500, 16), (2, 24, 1), (16, 2, 1)]
)
def test_the_formula_of_the_packagers(cores: int, gigabytes: int, jobs: int) -> None:
    assert formula_jobs(Share(cores=cores, memory=gigabytes * 10**9)) == jobs


def test_what_the_formula_did_not_end_takes_as_long_as_what_it_did() -> None:
    inline = taken(INLINE, seconds={"a": 80, "b": 100, "c": 120})
    part = taken(FORMULA, wall=99, jobs=2, seconds={"a": 40, "b": 50})
    assert at_pace(part, inline) == pytest.approx(75)  # half as long as 300 s, two at once
    assert at_pace(replace(part, seconds={"a": 1, "b": 1, "c": 1}), inline) == 99
    with pytest.raises(SystemExit, match="finished no source"):
        at_pace(replace(part, seconds={}), inline)


def test_ratios_of_what_there_is() -> None:
    pack = taken(PACK, wall=60, cpu=500)
    inline = taken(INLINE, wall=120, cpu=1000, seconds={"a": 80, "b": 100, "c": 120})
    formula = taken(FORMULA, wall=300, jobs=1, seconds={"a": 80})
    assert comparison({}) == ["no figures yet of: pack, inline, formula"]
    assert comparison({PACK: pack}) == ["no figures yet of: inline, formula"]
    assert comparison({PACK: pack, INLINE: inline}) == [
        "pack to inline: wall 0.500, CPU 0.500",
        "no figures yet of: formula",
    ]
    assert comparison({PACK: pack, INLINE: inline, FORMULA: formula})[1:] == ["pack to formula: wall 0.200 of 300 s"]


def test_figures_of_something_else_are_refused_before_anything_is_compiled() -> None:
    share = Share(cores=16, memory=1)
    good = taken(INLINE)
    require_same({PACK: taken(PACK), INLINE: good}, ["a", "b", "c"], share)
    for other in (replace(good, sources=("a",)), replace(good, cores=8)):
        with pytest.raises(SystemExit, match="figures of inline are of other sources or not of 16 cores"):
            require_same({PACK: taken(PACK), INLINE: other}, ["a", "b", "c"], share)


def test_sources_are_those_of_the_list_that_no_pattern_leaves_out(tmp_path: Path) -> None:
    names = ("flash_fwd_hdim64_bf16_sm90", "flash_fwd_hdim64_bf16_softcapall_sm80", "flash_fwd_combine")
    listing = tmp_path / "units.json"
    listing.write_text(json.dumps([{"units": [{"path": f"hopper/{name}.cu"} for name in names]}]), encoding="utf-8")
    assert sources_of(listing, []) == (names[2], names[0], names[1])
    assert sources_of(listing, ["*_sm80"]) == (names[2], names[0])
    assert sources_of(listing, ["*_sm80", "*combine"]) == (names[0],)


def test_a_way_that_was_ended_says_how_far_it_came_and_no_processor_time() -> None:
    assert str(taken(PACK)) == "pack         16    16    100.0     800.0  0.500  3 of 3"
    assert str(taken(FORMULA, jobs=4, seconds={"a": 1})) == "formula      16     4    100.0         -      -  1 of 3"


def test_figures_that_stand_are_read_again(tmp_path: Path) -> None:
    assert read_taken(tmp_path) == {}
    both = {way: taken(way, seconds={"a": 1.5}) for way in (PACK, INLINE)}
    for one in both.values():
        write_taken(tmp_path / "new", one)
    assert read_taken(tmp_path / "new") == both


def test_cores_and_words() -> None:
    assert parse_cores("3") == {3}
    assert parse_cores("0-2,8,10-11") == {0, 1, 2, 8, 10, 11}
    options = parse(["--units", "u", "--out", "o", "--way", "pack", "--cores", "0-3", "--without", "*_sm80"])
    assert (options.way, options.cores) == (["pack"], {0, 1, 2, 3})
    assert options.without == ["*_sm80"]
    for wrong in ("x", "1-", "-3", ""):
        with pytest.raises(SystemExit):
            parse(["--units", "u", "--out", "o", f"--cores={wrong}"])


def test_a_share_keeps_to_its_cores() -> None:
    before = os.sched_getaffinity(0)
    try:
        share = share_of_machine({min(before)}, 12)
    finally:
        os.sched_setaffinity(0, before)
    assert share == Share(cores=1, memory=12 * 10**9, budget=12 * 10**9)
    assert share_of_machine(None, None).budget is None


NVCC = """#!/bin/sh
for out in "$@"; do :; done
case "$out" in *_softcap_sm90.o) sleep 30 ;; esac
echo object > "$out"
"""
SOURCES = ("", "_packgqa", "_softcap")


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """Everything real but nvcc, which takes half a minute for one of the three sources, compiled by itself."""
    project = load_project(ROOT)
    root = tmp_path / "toolkit"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "nvcc").write_text(NVCC, encoding="utf-8")
    (root / "bin" / "nvcc").chmod(0o755)
    paths = [f"hopper/instantiations/flash_fwd_hdim128_bf16{feature}_sm90.cu" for feature in SOURCES]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    pin = project.pin_of(project.recipes["fa3-fwd"])
    units = [Unit(path=path, arguments=("-O1", *COMPRESS)) for path in paths]
    return Stand(
        project=project,
        units={unit.name: unit for unit in units},
        source=PatchedSource(pin=pin, root=tmp_path, patches={}, kernel_tree="k", front_tree="", origin="o"),
        toolkit=Toolkit(
            version=ToolkitVersion.parse("13.0"),
            release="13.0.88",
            origin=ToolkitOrigin.SYSTEM,
            root=root,
            fingerprint={"nvcc": "1"},
        ),
        compiler=HostCompiler(path=Path("/usr/bin/g++"), version="12.2", fingerprint={"driver": "1"}),
        workspace=Workspace(
            project=ROOT,
            cache=tmp_path / "work",
            wheelhouse=tmp_path / "wheels",
            environ={"PATH": os.defpath},
            reporter=Recorder(),
        ),
        costs=CostTable(learned=(), shipped=()),
    )


def test_the_formula_is_ended_and_keeps_what_it_finished(stand: Stand) -> None:
    found = compile_inline(stand, Share(cores=16, memory=100 * 10**9), FORMULA, limit=2)
    assert (found.jobs, found.finished, found.whole) == (4, 2, False)
    assert sorted(found.seconds) == ["flash_fwd_hdim128_bf16_packgqa_sm90", "flash_fwd_hdim128_bf16_sm90"]
    assert 2 <= found.wall < 20


def test_a_pack_is_compiled_merged_cold_and_whole(stand: Stand, tmp_path: Path) -> None:
    share = Share(cores=16, memory=100 * 10**9, budget=100 * 10**9)
    found = compile_merged(stand, share, tmp_path / "curves.jsonl")
    assert (found.way, found.jobs, found.finished, found.whole) == (PACK, 1, 3, True)
    with pytest.raises(SystemExit, match=r"were in .* before"):
        compile_merged(stand, share, tmp_path / "curves.jsonl")


def test_upstream_words_that_do_not_compile_end_with_what_ninja_said(stand: Stand) -> None:
    stand.toolkit.nvcc.write_text("#!/bin/sh\necho no good\nexit 3\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="no good"):
        compile_inline(stand, Share(cores=1, memory=1), INLINE, limit=0)
