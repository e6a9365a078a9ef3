"""The Slurm script, with a stand-in for srun that runs its command here once a node; and the Kubernetes manifest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.integration.cluster import PROJECT, make_shop, units

SCRIPT = PROJECT / "examples" / "slurm" / "dask-cluster.sbatch"
MANIFEST = PROJECT / "examples" / "kubernetes" / "dask-workers.yaml"

# Takes what srun takes of options, and ends its commands when it is told to end.
SRUN = """#!/bin/bash
nodes=1
while [[ $1 == --* ]]; do
  case $1 in --ntasks=*) nodes=${1#*=} ;; esac
  shift
done
trap 'kill $(jobs -pr); wait' TERM
for ((node = 0; node < nodes; node++)); do "$@" & done
wait
"""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def test_the_slurm_script_builds_with_a_worker_on_each_node(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    here = shop.compile(units("abcdef"), None)
    shop.forget()
    tools = tmp_path / "venv" / "bin"
    executable(tools / "srun", SRUN)
    executable(tools / "dask", f'#!/bin/sh\nexec {sys.executable} -m dask "$@"\n')
    build = f'cd {PROJECT} && exec {sys.executable} -m tests.integration.build_cheaply "$@"'
    executable(tools / "hopperforge", f"#!/bin/sh\n{build}\n")
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2"}
    job |= {"SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_NODE": "20000"}
    own = {"VENV": str(tools.parent), "WORKER_CACHE": str(tmp_path / "nodes"), "USER": "somebody"}
    done = subprocess.run(
        ["bash", SCRIPT, shop.root], env={**os.environ, **job, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pack {here.sha256} compiled 6" in done.stdout
    assert done.stderr.count("Register worker") == 2
    assert "End scheduler" in done.stderr


def test_a_job_without_a_memory_limit_is_refused() -> None:
    done = subprocess.run(
        ["bash", SCRIPT],
        env={"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": "/", "USER": "u"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "submit with --mem=" in done.stderr


def test_the_manifest_gives_workers_less_than_their_pods_may_take() -> None:
    documents = list(YAML(typ="safe").load_all(MANIFEST))
    assert [document["kind"] for document in documents] == ["Service", "Deployment", "Deployment", "NetworkPolicy"]
    (pod,) = documents[2]["spec"]["template"]["spec"]["containers"]
    words = [*pod["command"], *pod["args"]]
    memory = int(words[words.index("--resources") + 1].removeprefix("MEM="))
    limit = int(pod["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
    assert limit - memory == 4 * 2**30
    assert words[words.index("--nthreads") + 1] == pod["resources"]["requests"]["cpu"]
