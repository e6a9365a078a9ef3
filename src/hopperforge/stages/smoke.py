"""The smoke stage: a recipe's own tests, in the user's Python that has the framework, on this machine's GPU."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hopperforge.errors import SmokeError
from hopperforge.model.recipe import Recipe
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace


def run_smoke(wheel: Path, *, recipe: Recipe, interpreter: str, workspace: Workspace) -> Mapping[str, Any]:
    """Run the tests with `interpreter`, which needs the framework and pytest, and return what they wrote.

    Raises SmokeError if a test failed, or if there is no GPU to run them on.
    """
    log = make_folder(workspace.logs) / f"smoke-{wheel.name}.log"
    workspace.reporter.stage("smoke", f"{wheel.name} with {interpreter}")
    with temporary_folder(make_folder(workspace.work), "smoke-") as folder:
        result = folder / "gpu.json"
        kit = recipe.folder / "smoke"
        done = run(
            [interpreter, "-m", "pytest", kit, "--wheel", wheel.absolute(), "--gpu-json", result],
            cwd=kit,
            env=workspace.environ,
            log=log,
            on_line=lambda line: workspace.reporter.output("smoke", line),
        )
        if done.status != 0 or not result.is_file():
            raise SmokeError(
                f"the smoke tests of {wheel.name} failed with status {done.status}",
                detail=[*done.tail, f"log: {log}"],
                hint=f"interpreter= names a Python that has what {kit / 'README.md'} says, beside such a GPU",
            )
        gpu: Mapping[str, Any] = json.loads(result.read_bytes())
        return gpu
