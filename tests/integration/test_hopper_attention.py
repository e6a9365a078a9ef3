"""hopper_attention beside a real torch on the CPU: its own smoke tests, in an environment that has nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, MakeHome
from tests.integration.snippets import snippets

from hopperforge.config.project import load_project
from hopperforge.model.request import Request
from hopperforge.model.versions import PythonVersion, TorchVersion
from hopperforge.model.wheel import ImportProof
from hopperforge.planning import Situation, make_plan
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.front_python import PythonInputs, make_python_wheel
from hopperforge.stages.import_gate import framework_venv, prove_import

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RECIPE = PROJECT / "recipes" / "hopper-attention"
TORCH = TorchVersion(2, 11)
EVERY = "11"  # shares no factor with the numbers of parameters, so that each value of each is run
IMPORTED = """
import sys, torch, hopper_attention as h
assert not torch.cuda.is_initialized()
assert all(hasattr(h, name) for name in h.__all__)
assert "fa3_fwd_interface" not in sys.modules
assert (h.is_flash_attention_3_available(), h.get_flash_attention_version()) == (False, None)
"""
ALL_AT_ONCE = """
import runpy
for path in sys.argv[1:]:
    runpy.run_path(path)
"""


@pytest.fixture(scope="module")
def workspace(make_home: MakeHome) -> Workspace:
    home = make_home("attention")
    return Workspace(
        project=PROJECT, cache=home / "cache", wheelhouse=home, environ=dict(os.environ), reporter=Recorder()
    )


@pytest.fixture(scope="module")
def interpreter(workspace: Workspace) -> Path:
    """A Python with the torch that the import gates' tests fetch too."""
    return framework_venv(sys.executable, f"torch=={TORCH}.*", workspace)


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The package and pytest to be found; the recipe's folder stays as it is, for it goes into wheels."""
    folder = tmp_path_factory.mktemp("attention")
    words = ("install", "--quiet", "--disable-pip-version-check", "--target", folder / "pytest", "pytest")
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return {
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": f"{RECIPE / 'python'}:{folder / 'pytest'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def test_the_wheel_imports_beside_a_real_torch(workspace: Workspace, tmp_path: Path) -> None:
    """What `nox -s verify -- wheel=... torch=2.11` asks: the import, for there are no operators and no guard."""
    project = load_project(PROJECT)
    here = Situation(toolkits_at_hand={}, python=PythonVersion(3, 11), platform="linux_x86_64")
    (build,) = make_plan(project, Request(recipe="hopper-attention"), here).builds
    wheel = make_python_wheel(PythonInputs.read(build, project.pin_of(build.recipe), workspace), tmp_path).path
    promise = build.recipe.promised
    assert promise is not None
    result = prove_import(wheel, promise=promise, torch=TORCH, python=sys.executable, workspace=workspace)
    assert (result.passed, ImportProof.parse(result.name) is not None) == (True, True), result.detail
    assert result.detail.startswith("hopper_attention imports beside torch 2.11")


def test_the_smoke_tests_pass_where_there_is_no_gpu(interpreter: Path, environ: dict[str, str]) -> None:
    """Numbers against float64, choices, compiled graphs, dilated attention, and the ring over gloo."""
    run = subprocess.run(
        [interpreter, "-m", "pytest", "-q", "--every", EVERY, RECIPE / "smoke"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RECIPE,
        env=environ,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert " skipped" not in run.stdout


def test_importing_asks_for_no_gpu_and_what_the_how_to_says_runs(
    interpreter: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """Every Python snippet as it stands, after the import in one process, the last by torchrun in two."""
    scripts = []
    for number, snippet in enumerate(snippets("attention", "python")):
        scripts.append(tmp_path / f"snippet{number}.py")
        scripts[-1].write_text(snippet, encoding="utf-8")
    assert len(scripts) == 5
    commands: list[list[str | Path]] = [
        [interpreter, "-c", IMPORTED + ALL_AT_ONCE, *scripts[:-1]],
        [interpreter, "-m", "torch.distributed.run", "--nproc-per-node", "2", scripts[-1]],
    ]
    for command in commands:
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        assert run.returncode == 0, run.stderr
