"""The whole path on real input: upstream's source to a wheel that a real CUDA torch imports.

One cold build is interrupted in every way that matters before it may finish, so the faults cost little beyond it.
The tests of this module run in order and share one cache and wheelhouse.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, MakeHome, Running, hopperforge, processes
from tests.integration.snippets import snippets

from hopperforge.config.project import load_project
from hopperforge.model.matrix import CiCell

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

WORDS = ("build", "recipe=fa3-fwd", "profile=hdim128-bf16", "cuda=13.0", "toolkit=registry", "engine=host")
COMPILERS = ("nvcc", "cicc", "cudafe++", "ptxas", "fatbinary")


@pytest.fixture(scope="module")
def home(make_home: MakeHome) -> Path:
    return make_home("home")


def _report(home: Path) -> dict[str, object]:
    (build,) = json.loads((home / "wheelhouse" / "report.json").read_text())["builds"]
    return dict(build)


def _half_made(home: Path) -> list[str]:
    """Files a stopped run should not have left: anything in work but locks, and temporary names anywhere."""
    work = [path for path in (home / "cache" / "work").rglob("*") if path.suffix != ".lock"]
    return [str(path) for path in (*work, *Path(tempfile.gettempdir()).glob("hopperforge-*/*"))]


def test_plan_knows_what_it_cannot_know_yet(home: Path) -> None:
    started = time.monotonic()
    ended = hopperforge("plan", *WORDS[1:], "torch=2.9,2.11,2.13", home=home)
    assert ended.status == 0, ended.err
    assert "number of units known once" in ended.out
    assert "1 build for 3 cells" in ended.out
    assert not (home / "cache" / "sources").exists()
    assert time.monotonic() - started < 3


def test_ctrl_c_in_the_middle_of_a_unit_leaves_no_process_and_no_half_file(home: Path) -> None:
    run = Running(*WORDS, "torch=2.11", home=home)
    run.wait_for("1/2 units")
    assert processes(COMPILERS, home)
    assert run.send(signal.SIGINT) == 130
    assert "interrupted" in run.lines[-2]
    assert processes(COMPILERS, home) == []
    assert _half_made(home) == []


def test_kill_9_and_a_killed_compiler_lose_nothing(home: Path) -> None:
    run = Running(*WORDS, "torch=2.11", home=home)
    run.wait_for("2 units, 1 cached")
    run.wait_for("1/2 units")
    time.sleep(3)
    assert run.send(signal.SIGKILL) == -signal.SIGKILL
    orphans = processes(["nvcc"], home)
    again = Running(*WORDS, "torch=2.11", home=home)
    again.wait_for("2 units, 1 cached")
    if orphans:
        again.wait_for("waiting for it")
        for orphan in processes(COMPILERS, home):
            os.kill(orphan, signal.SIGKILL)
    _kill_when_it_runs("cicc", home)
    assert again.finish() == 6
    assert any("flash_fwd_hdim128_bf16_sm90 was killed while compiling" in line for line in again.lines)
    assert any("out of memory" in line for line in again.lines)
    assert any("kept: 1 of 2 units" in line for line in again.lines)
    assert processes(COMPILERS, home) == []
    assert _half_made(home) == []


def _kill_when_it_runs(name: str, home: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for found in processes([name], home):
            os.kill(found, signal.SIGKILL)
            return
        time.sleep(0.1)
    pytest.fail(f"{name} never ran")


def test_the_build_goes_on_where_it_stopped_and_serves_three_torches(home: Path) -> None:
    ended = hopperforge(*WORDS, "torch=2.9,2.11,2.13", home=home)
    assert ended.status == 0, ended.err
    assert "CUDA 13.0 compiles, torch runs on CUDA 13.0" in ended.err
    assert "2 units, 1 cached" in ended.err
    report = _report(home)
    assert report["units_compiled"] == 1
    assert len(report["cells"]) == 3  # type: ignore[arg-type]
    wheel = Path(str(report["wheel"]))
    assert wheel.stat().st_size < 1_000_000
    assert int(str(report["library_size"])) < 2_000_000
    assert _half_made(home) == []


def test_the_record_says_what_went_in_and_what_was_proven(home: Path) -> None:
    report = _report(home)
    record = json.loads(Path(f"{report['wheel']}.json").read_text())
    assert record["wheel"]["sha256"] == report["sha256"]
    assert len(record["pack"]["units"]) == 2
    assert all(unit["seconds"] > 0 and unit["peak_rss"] > 0 for unit in record["pack"]["units"])
    assert all(gate["passed"] for gate in record["gates"])
    names = {gate["name"] for gate in record["gates"]}
    assert {"abi3", "architectures", "exports", "metadata", "needed", "paths", "platform-tag", "record"} <= names
    assert record["toolkit"]["fingerprint"].keys() >= {"nvcc", "ptxas", "cicc", "cudafe++", "fatbinary", "nvlink"}


def test_a_second_run_finds_the_same_bytes_at_once(home: Path) -> None:
    before = _report(home)
    started = time.monotonic()
    ended = hopperforge(*WORDS, "torch=2.11", home=home, env={"PIP_INDEX_URL": "http://127.0.0.1:9/", "CXX": None})
    assert ended.status == 0, ended.err
    assert time.monotonic() - started < 10
    assert "cached" in ended.err
    after = _report(home)
    assert (after["cached"], after["sha256"]) == (True, before["sha256"])


def test_bound_again_from_the_same_pack_the_bytes_are_the_same(home: Path) -> None:
    before = _report(home)
    for path in (home / "wheelhouse").glob("*.whl*"):
        path.unlink()
    ended = hopperforge(*WORDS, "torch=2.13", home=home)
    assert ended.status == 0, ended.err
    after = _report(home)
    assert (after["units_compiled"], after["sha256"]) == (0, before["sha256"])


def test_jax_binds_the_kernels_of_the_torch_wheel(home: Path) -> None:
    before = (home / "wheelhouse" / "report.json").read_bytes()
    words = ("recipe=fa3-jax", "profile=hdim128-bf16", "cuda=13.0", "toolkit=registry", "engine=host")
    ended = hopperforge("build", *words, home=home)
    assert ended.status == 0, ended.err
    assert "2 units, 2 cached" in ended.err
    report = _report(home)
    assert report["units_compiled"] == 0
    assert "fa3_jax-3.0.0+cu130.hdim128.bf16-py3-none-manylinux" in str(report["wheel"])
    record = json.loads(Path(f"{report['wheel']}.json").read_text())
    assert all(gate["passed"] for gate in record["gates"])
    (home / "wheelhouse" / "report.json").write_bytes(before)  # what follows is of the torch wheel


def test_real_cuda_torch_imports_the_wheel_without_a_gpu(home: Path) -> None:
    wheel = str(_report(home)["wheel"])
    ended = hopperforge("verify", f"wheel={wheel}", "torch=2.11", home=home)
    assert ended.status == 0, ended.err
    assert "import with torch 2.11" in ended.out
    record = json.loads(Path(f"{wheel}.json").read_text())
    assert [gate["passed"] for gate in record["gates"] if gate["name"].startswith("import")] == [True]


def test_a_damaged_wheel_is_not_taken_for_finished(home: Path) -> None:
    before = _report(home)
    wheel = Path(str(before["wheel"]))
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    ended = hopperforge(*WORDS, "torch=2.11", home=home)
    assert ended.status == 0, ended.err
    after = _report(home)
    assert (after["cached"], after["sha256"]) == (False, before["sha256"])


def test_the_library_without_torch_takes_every_kernel_of_the_torch_wheel(home: Path) -> None:
    torch = json.loads(Path(f"{_report(home)['wheel']}.json").read_text())
    ended = hopperforge("build", "recipe=fa3-cpp", *WORDS[2:], home=home)
    assert ended.status == 0, ended.err
    assert "2 units, 2 cached" in ended.err
    report = _report(home)
    assert report["units_compiled"] == 0
    record = json.loads(Path(f"{report['wheel']}.json").read_text())
    assert record["pack"]["sha256"] == torch["pack"]["sha256"]
    assert record["timings"]["front"] < 60
    assert all(gate["passed"] for gate in record["gates"])
    names = {gate["name"] for gate in record["gates"]}
    assert {"needed", "exports", "soname", "platform-tag", "architectures", "tarball", "programs"} <= names


def test_the_program_of_its_how_to_is_built_as_it_says(home: Path, tmp_path: Path) -> None:
    """With the toolkit that the build fetched: this program calls the CUDA runtime itself."""
    (program,) = snippets("cpp", "cpp")
    (tmp_path / "main.cpp").write_text(program)
    (wheel,) = (home / "wheelhouse").glob("hopperforge_fa3-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    prefix = tmp_path / "hopperforge_fa3"
    toolkit = next((home / "cache" / "toolkits").glob("*/include/cuda_runtime_api.h")).parents[1]
    ours = (f"-I{prefix}/include", f"-L{prefix}/lib", "-lhopperforge_fa3", f"-Wl,-rpath,{prefix}/lib")
    cuda = (
        "-isystem",
        f"{toolkit}/include",
        f"-L{toolkit}/lib64",
        "-l:libcudart_static.a",
        "-ldl",
        "-lrt",
        "-lpthread",
    )
    words = ("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "main.cpp", *ours, *cuda, "-o", "main")
    subprocess.run(words, cwd=tmp_path, check=True)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([tmp_path / "main"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "no memory of a GPU\n")


ON_THE_HOST = [cell for cell in load_project(PROJECT).matrix.ci if cell.engine == "host"]


@pytest.mark.parametrize("cell", ON_THE_HOST, ids=lambda cell: f"{cell.cuda}-torch{cell.torch}")
def test_what_the_readme_says_ci_proves(home: Path, cell: CiCell) -> None:
    points = (f"cuda={cell.cuda}", f"torch={cell.torch}")
    words = ("profile=hdim128-bf16", "toolkit=registry", f"engine={cell.engine}", *points)
    ended = hopperforge("build", *words, home=home)
    assert ended.status == 0, ended.err
    ended = hopperforge("verify", f"wheel={_report(home)['wheel']}", f"torch={cell.torch}", home=home)
    assert ended.status == 0, ended.err
    ended = hopperforge("matrix", "--json", "profile=hdim128-bf16", *points, home=home)
    (row,) = json.loads(ended.out)["rows"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (row["state"], row["proofs"]) == ("built and proven", [f"imports in python {python}"])


def test_one_failed_build_does_not_stop_the_others(home: Path) -> None:
    # the machine's own toolkits are not asked, and the archives of 12.8 are not where we say
    settings = {"HTTPS_PROXY": "http://127.0.0.1:9", "CUDA_HOME": None}
    words = ("engine=host", "profile=hdim128-bf16", "cuda=12.8,13.0", "torch=2.11")
    ended = hopperforge("build", "all", *words, home=home, env=settings)
    assert ended.status == 5, ended.err
    assert "error: there is no CUDA 12.8 toolkit to compile with" in ended.err
    builds = json.loads((home / "wheelhouse" / "report.json").read_text())["builds"]
    assert [(build["build"].split()[1], build["error"] is None) for build in builds] == [
        ("cu128.hdim128.bf16", False),
        ("cu130.hdim128.bf16", True),
    ]


def test_upstreams_own_build_is_kept_for_comparison(home: Path) -> None:
    ended = hopperforge(*WORDS, "torch=2.11", "kernels=inline", home=home)
    assert ended.status == 0, ended.err
    report = _report(home)
    assert str(report["wheel"]).count("+cu130.hdim128.bf16.inline-") == 1
    record = json.loads(Path(f"{report['wheel']}.json").read_text())
    assert (record["pack"], record["kernels"]) == (None, "inline")


def test_smoke_without_a_gpu_fails_with_its_own_code(home: Path) -> None:
    wheel = next(str(path) for path in (home / "wheelhouse").glob("fa3_fwd-*+cu130.hdim128.bf16-*.whl"))
    (interpreter,) = (home / "cache" / "venvs").glob("torch-2.11*/bin/python")
    beside_torch = {"PYTHONPATH": str(Path(pytest.__file__).parents[1])}  # the gate's Python has no pytest
    ended = hopperforge("smoke", f"wheel={wheel}", f"interpreter={interpreter}", home=home, env=beside_torch)
    assert ended.status == 10
    assert "error: the smoke tests of" in ended.err
    assert "the smoke tests cannot run here: fa3-fwd needs a GPU of compute capability 9.0" in ended.err
