"""What the smoke tests of all recipes share, in sessions of a recipe that needs no GPU and no framework."""

import ctypes
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
KITS = sorted(path.parent for path in RECIPES.glob("*/smoke/conftest.py"))
sys.path.insert(0, str(RECIPES))  # the shared part is for bare nodes: no package of ours, found by its folder

from smoke_common.machine import driver_version  # noqa: E402
from smoke_common.speed import Timed  # noqa: E402
from smoke_common.wheel import Build, Fa3UnderTest, Wheel, import_from, unpack  # noqa: E402

pytest_plugins = ["pytester"]

WHEEL = "toy_attention-1.0-py3-none-any.whl"
CONFTEST = (RECIPES / "flash-attn-fp32" / "smoke" / "conftest.py").read_text(encoding="utf-8")
KIT = """
from smoke_common.wheel import Fa3UnderTest, import_from, read_build, unpack

def load_subject(wheel, folder):
    unpacked = unpack(wheel, folder)
    import_from(unpacked, "toy_attention")
    return Fa3UnderTest(unpacked, read_build(import_from(unpacked, "toy_attention._build")))

def missing_gpu(subject):
    return "no GPU at all" if subject.build.profile == "blind" else None

def machine_facts(_):
    return {"gpu": "a toy", "driver": "1.2"}
"""
TESTS = """
import pytest

def test_plain(subject, speeds):
    speeds.append({"tflops": 7})

@pytest.mark.needs("FP8")
def test_float8(subject):
    raise AssertionError("this profile has none")
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def bare_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions see no plugin that is installed here: nodes have none."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def toy(pytester: pytest.Pytester) -> Path:
    """A recipe `toy` with a smoke folder, beside the real `smoke_common`, and its wheel."""
    shutil.copytree(RECIPES / "smoke_common", pytester.path / "recipes" / "smoke_common")
    shutil.copy(RECIPES / "pytest.ini", pytester.path / "recipes" / "pytest.ini")
    smoke = pytester.mkdir("recipes/toy") / "smoke"
    smoke.mkdir()
    for name, text in (("conftest.py", CONFTEST), ("smoke_kit.py", KIT), ("test_toy.py", TESTS)):
        (smoke / name).write_text(text, encoding="utf-8")
    make_wheel(pytester.path / WHEEL)
    return smoke


def make_wheel(path: Path, *, profile: str = "small", package: str = "toy_attention") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "")
        archive.writestr(
            f"{package}/_build.py",
            f"PROFILE = {profile!r}\nCUDA = '13.0'\nSWITCHES = ('DISABLE_FP8', 'DISABLE_HDIM64')\n",
        )


@pytest.fixture
def run(pytester: pytest.Pytester, toy: Path) -> Run:
    def start(*words: str) -> pytest.RunResult:
        chosen = words or (str(toy),)
        return pytester.runpytest_inprocess(*chosen, "--wheel", WHEEL, "--gpu-json", "gpu.json")

    return start


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("gpu.json").read_bytes())
    return found


def test_gpu_json(run: Run) -> None:
    ended = run()
    assert ended.ret == pytest.ExitCode.OK
    ended.assert_outcomes(passed=1, deselected=1)
    ended.stdout.fnmatch_lines([f"wheel: {WHEEL}, profile small, CUDA 13.0", "gpu a toy, driver 1.2"])
    assert list(results().items()) == [
        ("wheel", WHEEL),
        ("sha256", hashlib.sha256(Path(WHEEL).read_bytes()).hexdigest()),
        ("profile", "small"),
        ("gpu", "a toy"),
        ("driver", "1.2"),
        ("passed", 1),
        ("failed", 0),
        ("complete", True),
        ("tests", {"passed": ["test_toy.py::test_plain"], "failed": []}),
        ("tflops", [{"tflops": 7}]),
    ]
    assert not list(Path.cwd().glob(".gpu.json*"))


def test_tests_are_spread_and_those_of_larger_machines_left_out(run: Run, toy: Path) -> None:
    """What a machine is too small for is no hole in the proof, unlike what somebody left out."""
    own = (
        "machine_facts, lambda subject: {'dtype': ['torch.half', 'torch.single']}, lambda item: 'many' not in item.name"
    )
    (toy / "conftest.py").write_text(CONFTEST.replace("machine_facts))", f"{own}))"), encoding="utf-8")
    (toy / "test_toy.py").write_text("def test_each(dtype): pass\ndef test_of_many(): assert False", encoding="utf-8")
    run().assert_outcomes(passed=2, deselected=1)
    assert results()["tests"]["passed"] == ["test_toy.py::test_each[half]", "test_toy.py::test_each[single]"]
    assert results()["complete"] is True


def test_help_needs_no_wheel(pytester: pytest.Pytester, toy: Path) -> None:
    ended = pytester.runpytest_inprocess(str(toy), "--help")
    assert ended.ret == pytest.ExitCode.OK
    ended.stdout.fnmatch_lines(["*--wheel=WHEEL*", "*--gpu-json=GPU_JSON*"])


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("def test_it(): assert False", "test_more.py::test_it"),
        ("def test_it(nothing_of_that_name): pass", "test_more.py::test_it"),
        (
            "import pytest\n@pytest.fixture\ndef late():\n    yield\n    assert False\ndef test_it(late): pass",
            "test_more.py::test_it",
        ),
        ("import a_module_that_is_not_there", "test_more.py"),
    ],
    ids=["in the test", "before it", "after it", "in its file"],
)
def test_a_failure_counts_wherever_it_is(run: Run, toy: Path, text: str, failed: str) -> None:
    (toy / "test_more.py").write_text(text, encoding="utf-8")
    assert run(str(toy), "--continue-on-collection-errors").ret != pytest.ExitCode.OK
    assert (results()["failed"], results()["tests"]["failed"]) == (1, [failed])
    assert results()["passed"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("-k", "test_plain"),
        ("-m", "not slow"),
        ("--deselect", "toy/smoke/test_more.py::test_it"),
        ("--ignore", "recipes/toy/smoke/test_more.py"),
        ("--ignore-glob", "*more*"),
    ],
    ids=lambda words: words[0],
)
def test_a_part_of_the_kit_is_not_complete(run: Run, toy: Path, words: tuple[str, ...]) -> None:
    (toy / "conftest.py").write_text(
        CONFTEST.replace("begin(", "config.addinivalue_line('markers', 'slow')\n    begin("),
        encoding="utf-8",
    )
    (toy / "test_more.py").write_text("import pytest\n@pytest.mark.slow\ndef test_it(): pass", encoding="utf-8")
    assert run(str(toy)).ret == pytest.ExitCode.OK
    assert (results()["passed"], results()["complete"]) == (2, True)
    assert run(str(toy), *words).ret == pytest.ExitCode.OK
    assert (results()["passed"], results()["failed"], results()["complete"]) == (1, 0, False)


@pytest.mark.parametrize("chosen", ["test_toy.py", "test_toy.py::test_plain"])
def test_one_file_is_not_complete(run: Run, toy: Path, chosen: str) -> None:
    assert run(str(toy / chosen)).ret == pytest.ExitCode.OK
    assert (results()["passed"], results()["complete"]) == (1, False)


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\ndef test_it(): pytest.skip('no reason')",
        "import pytest\n@pytest.mark.skip\ndef test_it(): pass",
        "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False",
    ],
    ids=["skipped inside", "skipped", "expected to fail"],
)
def test_a_test_that_did_not_run_is_not_complete(run: Run, toy: Path, text: str) -> None:
    (toy / "test_more.py").write_text(text, encoding="utf-8")
    assert run().ret == pytest.ExitCode.OK
    assert (results()["passed"], results()["failed"], results()["complete"]) == (1, 0, False)


def test_a_session_that_ends_early_is_not_complete(run: Run, toy: Path) -> None:
    (toy / "test_zz_last.py").write_text("import pytest\ndef test_it(): pytest.exit('stop')", encoding="utf-8")
    assert run().ret != pytest.ExitCode.OK
    assert (results()["passed"], results()["failed"], results()["complete"]) == (1, 0, False)


def test_no_test_no_gpu_json(run: Run, toy: Path) -> None:
    (toy / "test_toy.py").write_text("", encoding="utf-8")
    assert run().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert not Path("gpu.json").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: make_wheel(path, profile="blind"), "Exit: the smoke tests cannot run here: no GPU at all"),
        (
            lambda path: path.write_bytes(b"no zip"),
            f"Exit: the smoke tests cannot run: {WHEEL} does not load: File is not a zip file",
        ),
        (
            lambda path: make_wheel(path, package="other"),
            f"Exit: the smoke tests cannot run: {WHEEL} does not load: No module named 'toy_attention'",
        ),
    ],
    ids=["no gpu", "no wheel", "no package"],
)
def test_what_cannot_run_ends_with_one_sentence(run: Run, make: Callable[[Path], object], sentence: str) -> None:
    make(Path(WHEEL))
    ended = run()
    assert ended.ret == 10
    assert [line for line in (*ended.outlines, *ended.errlines) if line] == [sentence]
    assert not Path("gpu.json").exists()


def test_the_unpacked_wheel_is_removed(run: Run, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(toy.parent))
    for profile in ("small", "blind"):
        make_wheel(Path(WHEEL), profile=profile)
        run()
    assert [path.name for path in toy.parent.iterdir()] == ["smoke"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "ERROR: --wheel must name a wheel file, and is None"),
        (("--wheel", "missing.whl"), "ERROR: --wheel must name a wheel file, and is missing.whl"),
        (
            ("--wheel", WHEEL, "--gpu-json", "no-folder/gpu.json"),
            "ERROR: --gpu-json is no-folder/gpu.json, and that folder does not exist",
        ),
    ],
)
def test_wrong_options(pytester: pytest.Pytester, toy: Path, words: tuple[str, ...], sentence: str) -> None:
    ended = pytester.runpytest_inprocess(str(toy), *words)
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in ended.errlines


@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.parent.name)
def test_a_smoke_folder_copied_alone_says_what_is_missing(pytester: pytest.Pytester, kit: Path) -> None:
    """The import of a framework must not come first, so that this holds where none is."""
    shutil.copytree(kit, pytester.path / "alone" / "smoke")
    ended = pytester.runpytest_inprocess("alone/smoke", "--wheel", WHEEL)
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    missing = pytester.path / "smoke_common"
    assert f"there is no {missing}: copy the whole folder recipes/" in "\n".join(ended.errlines)


def libraries(nvml: int | None) -> Callable[[str], Any]:
    """Opens libraries that answer as NVIDIA's do: NVML begins with the status `nvml`, and is missing where None."""

    def driver_version_of(text: Any, _: int) -> int:
        text.value = b"580.65.06"
        return 0

    def cuda_version_of(version: Any) -> int:
        ctypes.cast(version, ctypes.POINTER(ctypes.c_int))[0] = 12080
        return 0

    def load(name: str) -> Any:
        if name == "libcuda.so.1":
            return SimpleNamespace(cuDriverGetVersion=cuda_version_of)
        if nvml is None:
            raise OSError(name)
        return SimpleNamespace(nvmlInit_v2=lambda: nvml, nvmlSystemGetDriverVersion=driver_version_of)

    return load


@pytest.mark.parametrize(
    ("nvml", "version"), [(0, "580.65.06"), (9, "CUDA 12.8"), (None, "CUDA 12.8")], ids=["found", "fails", "missing"]
)
def test_driver_version(nvml: int | None, version: str) -> None:
    assert driver_version(libraries(nvml)) == version


def build(*switches: str) -> Fa3UnderTest:
    return Fa3UnderTest(Wheel(Path("x.whl"), "", Path()), Build("small", "13.0", frozenset(switches)))


def test_what_a_profile_is_tested_over() -> None:
    whole, trimmed = build(), build("DISABLE_HDIM64", "DISABLE_HDIM128", "DISABLE_FP8", "DISABLE_HDIM96")
    assert (whole.head_dims, whole.head_dim) == ((64, 96, 128, 192, 256), 128)
    assert (trimmed.head_dims, trimmed.head_dim) == ((192, 256), 192)
    assert trimmed.served("bf16", {"FP16": "half", "FP8": "e4m3"}) == ("bf16", "half")
    assert trimmed.parameters(("bf16",)) == {
        "head_dim": [176, 192, 256],
        "dtype": ["bf16"],
        "switch": ["DISABLE_FP8", "DISABLE_HDIM128", "DISABLE_HDIM64", "DISABLE_HDIM96"],
    }
    assert whole.parameters(())["switch"] == ["none"]


def test_a_package_of_another_place_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path / WHEEL, package="json")
    wheel = unpack(tmp_path / WHEEL, tmp_path / "unpacked")
    try:
        with pytest.raises(ImportError, match=r"json comes from .*, not from .*: run the kit in a fresh Python"):
            import_from(wheel, "json")
    finally:
        sys.path.remove(str(wheel.folder))


@pytest.mark.parametrize(
    ("causal", "operations"), [(False, 4 * 2 * 16 * 100 * 100 * 64), (True, 2 * 2 * 16 * 100 * 100 * 64)]
)
def test_operations(causal: bool, operations: int) -> None:
    timed = Timed(2, 100, 16, 64, causal)
    assert timed.operations == operations
    assert timed.row("float16", 3.5) == {
        "batch": 2,
        "seqlen": 100,
        "heads": 16,
        "head_dim": 64,
        "causal": causal,
        "dtype": "float16",
        "tflops": 3.5,
    }
