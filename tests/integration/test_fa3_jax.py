"""fa3_jax on a machine without a GPU: the oldest and the newest JAX import, trace, lower, split and export with it.

The wheel of a profile with gradients is not built here; a hollow package of it, all but kernels, stands in for it. That
the pipeline builds the wheel, and of kernels from the store, is in test_build.py.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.command import PROJECT, MakeHome, hopperforge
from tests.integration.jax_front import Headers, hollow_package, jax_venv, jaxlib_headers, look
from tests.integration.snippets import snippets
from tests.unit import wheel_zoo as zoo

from hopperforge.config.project import load_project
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.versions import ToolkitVersion
from hopperforge.stages.toolkit import obtain_toolkit

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

OLDEST, NEWEST = "jax==0.5.0", "jax"
DENSE, PACKED = "bf16[2,256,4,128]", "bf16[1000,4,128]"

Seen = Mapping[str, Mapping[str, Any]]
SAID = "what the how-to's program says"


@pytest.fixture(scope="module")
def seen(make_home: MakeHome, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What the oldest and the newest JAX make of the hollow package, by requirement.

    The package is of the profile `train` and compiled with the oldest JAX's headers, as the wheel is.
    """
    folder = tmp_path_factory.mktemp("jax")
    home = make_home("home")
    with ThreadPoolExecutor(2) as pool:
        oldest, newest = pool.map(jax_venv, (folder / "oldest", folder / "newest"), (OLDEST, NEWEST))
    ended = hopperforge("patch", "recipe=fa3-fwd", "profile=train", "--json", home=home)
    assert ended.status == 0, ended.err
    project = load_project(PROJECT)
    toolkit = obtain_toolkit(
        project.matrix.toolkits[ToolkitVersion.parse("13.0")], ToolkitChoice.REGISTRY, zoo.workspace(folder / "work")
    )
    headers = Headers(
        upstream=Path(json.loads(ended.out)[0]["tree"]), toolkit=toolkit.root, jaxlib=jaxlib_headers(oldest)
    )
    switches = sorted(project.recipes["fa3-fwd"].profiles["train"].switches)
    package = hollow_package(folder / "package", headers=headers, profile="train", switches=switches)
    return {
        name: {**look(python, package), SAID: _program_of_the_how_to(python, package)}
        for name, python in ((OLDEST, oldest), (NEWEST, newest))
    }


def _program_of_the_how_to(python: Path, package: Path) -> str:
    """Run what the how-to says to try without a GPU."""
    (program,) = (text for text in snippets("jax", "python") if "lowering_platforms" in text)
    environ = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([python, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(params=[OLDEST, NEWEST])
def found(request: pytest.FixtureRequest, seen: Seen) -> Mapping[str, Any]:
    """What one JAX makes of it."""
    return seen[request.param]


def test_the_newest_is_newer_than_the_oldest(seen: Seen) -> None:
    versions = [tuple(int(part) for part in seen[name]["jax"].split(".")[:2]) for name in (OLDEST, NEWEST)]
    assert versions[0] == (0, 5)
    assert versions[1] >= (0, 10)


def test_running_without_a_gpu_says_what_is_missing(found: Mapping[str, Any]) -> None:
    assert "RuntimeError: FAILED_PRECONDITION" in found["refused"]
    assert "fa3_jax needs a GPU of compute capability 9.0 (H100, H200)" in found["refused"]
    assert "jax[cuda13]" in found["refused"]


def test_the_program_of_the_how_to_lowers_and_says_what_is_missing(found: Mapping[str, Any]) -> None:
    first, said = found[SAID].split("\n", 1)
    assert first == f"jax {found['jax']}: calls for CUDA: 1"
    assert "fa3_jax needs a GPU of compute capability 9.0 (H100, H200)" in said


def test_calls_lower_and_export_for_cuda(found: Mapping[str, Any]) -> None:
    assert found["forward"] == ["forward"]
    assert {"causal", "softmax_scale", "window_left", "num_splits"} <= set(found["attributes"])
    (aval,) = found["exported"]
    assert "bfloat16[4,256,8,128]" in aval


def test_vmap_is_one_call(found: Mapping[str, Any]) -> None:
    assert found["vmap"] == ["forward"]
    assert found["vmap shape"] == [3, 4, 256, 8, 128]
    assert found["vmap of gradient"] == [[3, 4, 256, 8, 128], [3, 4, 256, 2, 128], [3, 4, 256, 2, 128]]


def test_vmap_over_nothing_is_no_call(found: Mapping[str, Any]) -> None:
    assert found["vmap of nothing"] == [0, 1, 128, 2, 128]
    assert found["gradient of nothing"] == [[0, 1, 128, 2, 128]] * 3


def test_gradients_call_each_kernel_once(found: Mapping[str, Any]) -> None:
    assert found["gradient"] == ["forward", "backward"]
    assert found["packed"] == ["forward", "backward"]
    assert found["forward only"].startswith("UnsupportedFeatureError: flash_attention_hopper_fwd has no gradient")


def test_checkpoint_recomputes_unless_told_what_to_keep(found: Mapping[str, Any]) -> None:
    assert found["recomputed"] == ["forward", "forward", "backward"]
    assert found["kept"] == ["forward", "backward"]


def test_what_is_wrong_is_said_while_tracing(found: Mapping[str, Any]) -> None:
    assert found["shapes"].startswith("ValueError: query and key must have the same head_dim")
    assert found["dtypes"].startswith("TypeError: query, key and value must be of one dtype")
    assert found["traced scale"].startswith("TypeError: softmax_scale must be a Python number")
    assert found["no head dim"].startswith("ValueError: no axis of query, key and value may be of length 0")
    assert found["head dim"].startswith("UnsupportedFeatureError: head_dim is 264")
    assert found["float8"].startswith("UnsupportedFeatureError: this library is of profile `train`")


def test_partitioners_split_by_batch_and_heads_and_move_nothing(found: Mapping[str, Any]) -> None:
    parted = {name: what for name, what in found.items() if isinstance(what, dict) and "collectives" in what}
    assert {"gspmd gradient", "gspmd packed"} <= parted.keys()
    for name, what in parted.items():
        assert what == {"results": [PACKED if "packed" in name else DENSE] * 2, "collectives": []}, name


def test_the_newest_jax_splits_with_shardy_and_inside_shard_map(seen: Seen) -> None:
    assert {"shardy gradient", "shardy packed", "shard_map"} <= seen[NEWEST].keys()
