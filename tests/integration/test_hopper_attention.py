"""hopper_attention beside a real torch on the CPU: its own smoke tests, in an environment that has nothing else."""

import subprocess
import venv
from pathlib import Path

import pytest
from tests.integration.command import PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RECIPE = PROJECT / "recipes" / "hopper-attention"
TORCH = "torch==2.13.0"


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with torch and pytest."""
    folder = tmp_path_factory.mktemp("torch")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    words = ("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", TORCH, "pytest")
    subprocess.run([python, *words], check=True)
    return python


def test_the_smoke_tests_pass_where_there_is_no_gpu(interpreter: Path) -> None:
    """Numbers against float64, choices, compiled graphs, dilated attention, and the ring over gloo."""
    smoke = RECIPE / "smoke"
    run = subprocess.run(
        [interpreter, "-B", "-m", "pytest", "-q", "-c", smoke / "pytest.ini", smoke],
        capture_output=True,
        text=True,
        check=False,
        cwd=smoke,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert " skipped" not in run.stdout


def test_importing_needs_torch_and_asks_for_no_gpu(interpreter: Path) -> None:
    """The names of the package are there, and nothing of CUDA was started, on any machine."""
    code = (
        "import sys, torch, hopper_attention as h;"
        "assert not torch.cuda.is_initialized();"
        "assert all(hasattr(h, name) for name in h.__all__);"
        "assert 'fa3_fwd_interface' not in sys.modules;"
        "print(h.is_flash_attention_3_available(), h.get_flash_attention_version())"
    )
    run = subprocess.run(
        [interpreter, "-B", "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(RECIPE / "python")},
    )
    assert run.stdout.split() == ["False", "None"]
