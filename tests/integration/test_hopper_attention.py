"""hopper_attention beside a real torch on the CPU: its own smoke tests, in an environment that has nothing else."""

import subprocess
import venv
from pathlib import Path

import pytest
from tests.integration.command import PROJECT
from tests.integration.snippets import snippets

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


def environment(interpreter: Path) -> dict[str, str]:
    """The package to be found, and compiled modules beside the interpreter: the recipe's folder stays as it is."""
    return {
        "PATH": str(interpreter.parent),
        "PYTHONPATH": str(RECIPE / "python"),
        "PYTHONPYCACHEPREFIX": str(interpreter.parents[1] / "compiled"),
        "OMP_NUM_THREADS": "1",
    }


def test_the_smoke_tests_pass_where_there_is_no_gpu(interpreter: Path) -> None:
    """Numbers against float64, choices, compiled graphs, dilated attention, and the ring over gloo."""
    smoke = RECIPE / "smoke"
    run = subprocess.run(
        [interpreter, "-m", "pytest", "-q", "-c", smoke / "pytest.ini", smoke],
        capture_output=True,
        text=True,
        check=False,
        cwd=smoke,
        env=environment(interpreter),
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
        [interpreter, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(interpreter),
    )
    assert run.stdout.split() == ["False", "None"]


def test_what_the_how_to_says_runs(interpreter: Path, tmp_path: Path) -> None:
    """Every Python snippet as it stands, the last by torchrun in two processes."""
    *plain, ring = snippets("attention", "python")
    assert len(plain) == 4
    environ = environment(interpreter)
    for number, snippet in enumerate(plain):
        script = tmp_path / f"snippet{number}.py"
        script.write_text(snippet, encoding="utf-8")
        run = subprocess.run([interpreter, script], capture_output=True, text=True, check=False, env=environ)
        assert run.returncode == 0, run.stderr
    script = tmp_path / "ring.py"
    script.write_text(ring, encoding="utf-8")
    torchrun: list[Path | str] = [interpreter.with_name("torchrun"), "--nproc-per-node", "2", script]
    run = subprocess.run(torchrun, capture_output=True, text=True, check=False, env=environ)
    assert run.returncode == 0, run.stderr
