"""The import gate with real virtual environments and pip, on a small stand-in for the framework."""

import dataclasses
import json
import platform
import re
import sys
from pathlib import Path

import pytest
from tests.integration.stand_in import GUARDED, LOAD, framework_wheel
from tests.small_disk import small_disk
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import StorageError, ToolError
from hopperforge.model.versions import TorchVersion
from hopperforge.model.wheel import GateResult
from hopperforge.run.workspace import Workspace
from hopperforge.stages.framework import Target, framework_folder
from hopperforge.stages.import_gate import Found, framework_venv, prove_import, read_probe

TORCH = TorchVersion.parse("2.11")


@pytest.fixture(scope="module")
def framework(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A workspace in which the stand-in's venv is made once, and the requirement that names it."""
    folder = tmp_path_factory.mktemp("framework")
    return zoo.workspace(folder), str(framework_wheel(folder))


def _prove(
    framework: tuple[Workspace, str], folder: Path, interface: bytes, library: bytes | None = None
) -> GateResult:
    workspace, requirement = framework
    changes = {"fa3_fwd_interface.py": interface, zoo.LIBRARY: library or zoo.library()}
    wheel = zoo.write(folder, zoo.files(changes, tag=zoo.TAG), tag=zoo.TAG)
    return prove_import(
        wheel, promise=zoo.PROMISE, torch=TORCH, python=sys.executable, workspace=workspace, requirement=requirement
    )


def test_package_that_keeps_its_promise_passes(framework: tuple[Workspace, str], tmp_path: Path) -> None:
    result = _prove(framework, tmp_path, LOAD + GUARDED)
    assert result.passed, result.detail
    assert result.name == f"import with torch 2.11 in python {sys.version_info.major}.{sys.version_info.minor}"
    assert result.detail == (
        f"fa3_fwd_interface imports beside torch 2.11.0 in Python {platform.python_version()} on "
        f"{' '.join(platform.libc_ver())}, has fa3_fwd::fwd, and says what is missing without a GPU"
    )


def test_library_with_an_undefined_symbol_fails(framework: tuple[Workspace, str], tmp_path: Path) -> None:
    source = 'extern "C" void* aoti_torch_dtype_float32();\n'
    library = zoo.library(source + 'extern "C" void* PyInit__C() { return aoti_torch_dtype_float32(); }')
    result = _prove(framework, tmp_path, LOAD + GUARDED, library)
    assert not result.passed
    assert "import fa3_fwd_interface fails: OSError" in result.detail
    assert "undefined symbol: aoti_torch_dtype_float32" in result.detail


@pytest.mark.parametrize(
    ("interface", "says"),
    [
        (b"import torch\n" + GUARDED, "torch has no operator fa3_fwd::fwd after import fa3_fwd_interface"),
        (LOAD, "fa3_fwd_interface.flash_attn_func does not exist"),
        (LOAD + b"def flash_attn_func(q, k, v): return q\n", "returns instead of saying what is missing"),
        (LOAD + b"def flash_attn_func(q, k, v): raise RuntimeError('CUDA error 35')\n", "RuntimeError: CUDA error 35"),
        (LOAD + b"def flash_attn_func(q, k, v): ctypes.string_at(0)\n", "status 139"),
        (LOAD + b"def flash_attn_func(q, k, v): raise SystemExit\n", "status 0"),
        (b"import einops\n", "import fa3_fwd_interface fails: ModuleNotFoundError: No module named 'einops'"),
    ],
    ids=["no operator", "no function", "silent", "other words", "crash", "exit", "unnamed dependency"],
)
def test_package_that_breaks_its_promise_fails(
    framework: tuple[Workspace, str], tmp_path: Path, interface: bytes, says: str
) -> None:
    result = _prove(framework, tmp_path, interface)
    assert not result.passed
    assert says in result.detail


def test_neither_a_gpu_nor_the_users_paths_help(framework: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, requirement = framework
    (tmp_path / "einops.py").write_text("")
    helped = Workspace(
        project=workspace.project,
        cache=workspace.cache,
        wheelhouse=workspace.wheelhouse,
        environ={**workspace.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0", "LD_PRELOAD": ""},
        reporter=workspace.reporter,
    )
    look = b"import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''\nimport einops\n"
    result = _prove((helped, requirement), tmp_path / "wheel", look)
    assert "No module named 'einops'" in result.detail


def test_wheel_for_another_platform_is_refused_by_pip(framework: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, requirement = framework
    tag = "cp39-abi3-manylinux_2_99_x86_64"
    wheel = zoo.write(tmp_path, zoo.files(tag=tag), tag=tag)
    result = prove_import(
        wheel, promise=zoo.PROMISE, torch=TORCH, python=sys.executable, workspace=workspace, requirement=requirement
    )
    assert not result.passed
    assert "pip refuses the wheel" in result.detail
    assert "is not a supported wheel" in result.detail


def test_venv_is_made_once_and_again_if_its_python_went(framework: tuple[Workspace, str]) -> None:
    workspace, requirement = framework
    interpreter = framework_venv(sys.executable, requirement, workspace)
    marker = interpreter.parents[1] / "marker"
    marker.touch()
    assert framework_venv(sys.executable, requirement, workspace) == interpreter
    assert marker.exists()
    interpreter.unlink()
    assert framework_venv(sys.executable, requirement, workspace) == interpreter
    assert interpreter.exists()
    assert not marker.exists()


def test_framework_that_cannot_be_had_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = zoo.workspace(tmp_path)
    with pytest.raises(ToolError, match=r"nowhere-1-py3-none-any\.whl cannot be installed"):
        framework_venv(sys.executable, str(tmp_path / "nowhere-1-py3-none-any.whl"), workspace)
    assert [path.suffix for path in (workspace.cache / "venvs").iterdir()] == [".lock"]


def test_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be started"):
        framework_venv(str(tmp_path / "python3.99"), "torch", zoo.workspace(tmp_path))


def test_probe_answer_is_the_last_marked_line() -> None:
    first, last = ({"problems": problems, "beside": "torch 2.11.0"} for problems in ([], ["a", "b"]))
    lines = [f"PROBE {json.dumps(first)}", "noise", f"PROBE {json.dumps(last)}", "more"]
    assert read_probe(lines) == Found(problems=("a", "b"), beside="torch 2.11.0")
    assert read_probe(["noise"]) is None


BULKY = {"torch/bulk.bin": bytes(16_000_000)}


def test_a_disk_full_of_the_framework_is_said_to_be_full(tmp_path: Path) -> None:
    requirement = str(framework_wheel(tmp_path, BULKY))
    workspace = zoo.workspace(tmp_path)
    with small_disk(workspace.cache / "venvs", "size=8m") as disk:
        with pytest.raises(StorageError, match=f"^the disk that holds {re.escape(str(disk))} is full") as caught:
            framework_venv(sys.executable, requirement, workspace)
        assert any("No space left on device" in line for line in caught.value.detail)
        assert str(caught.value.hint).startswith(f"df -h {disk} ")
        assert [path.suffix for path in disk.iterdir()] == [".lock"]


def test_a_disk_full_of_a_framework_for_elsewhere_is_said_to_be_full(tmp_path: Path) -> None:
    requirement = str(framework_wheel(tmp_path, BULKY))
    target = Target(release=platform.python_version(), glibc=(2, 36), machine="x86_64")
    workspace = zoo.workspace(tmp_path)
    with small_disk(workspace.cache / "frameworks", "size=8m") as disk:
        with pytest.raises(StorageError, match=f"^the disk that holds {re.escape(str(disk))} is full") as caught:
            framework_folder(target, requirement, workspace)
        assert any("No space left on device" in line for line in caught.value.detail)
        assert [path.suffix for path in disk.iterdir()] == [".lock"]


def test_a_disk_full_of_the_package_is_no_fault_of_the_package(
    framework: tuple[Workspace, str], tmp_path: Path
) -> None:
    made, requirement = framework
    wheel = zoo.write(tmp_path, zoo.files({"fa3_fwd/bulk.bin": bytes(16_000_000)}, tag=zoo.TAG), tag=zoo.TAG)
    workspace = dataclasses.replace(made, cache=tmp_path / "cache")
    workspace.cache.mkdir(exist_ok=True)
    (workspace.cache / "venvs").symlink_to(framework_venv(sys.executable, requirement, made).parents[2])
    with (
        small_disk(workspace.work, "size=8m") as disk,
        pytest.raises(StorageError, match=f"^the disk that holds {re.escape(str(disk))} is full"),
    ):
        prove_import(
            wheel, promise=zoo.PROMISE, torch=TORCH, python=sys.executable, workspace=workspace, requirement=requirement
        )
