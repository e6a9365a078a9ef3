"""A package of Python alone, all the way: built, reproduced, published, found by the doctor, installed by pip."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.command import hopperforge

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORDS = ("recipe=hopper-attention",)


def test_it_is_a_package_as_any_other(tmp_path: Path) -> None:
    """Two builds give one sha256, by another process in another place; then it is on an index, and goes to any node."""
    built = hopperforge("build", *WORDS, home=tmp_path)
    assert built.status == 0, built.err
    assert "warning" not in built.err
    (report,) = json.loads((tmp_path / "wheelhouse" / "report.json").read_text())["builds"]
    wheel = Path(report["wheel"])
    assert wheel.name == "hopper_attention-1.0.0-py3-none-any.whl"

    reproduced = hopperforge("reproduce", f"wheel={wheel}", home=tmp_path)
    assert reproduced.status == 0, reproduced.err
    assert f"{wheel.name}: reproduced, {report['sha256']}" in reproduced.out
    record = json.loads(Path(f"{wheel}.json").read_text())
    assert (record["format"], record["toolkit"], record["host_compiler"], record["pack"]) == (5, None, None, None)
    assert len(record["reproduced"]) == 1

    index = tmp_path / "index"
    refused = hopperforge("publish", f"to={index}", home=tmp_path)
    assert "no smoke tests on a GPU" in refused.out + refused.err
    published = hopperforge("publish", f"to={index}", "--allow-unproven", home=tmp_path)
    assert published.status == 0, published.err
    words = ("doctor", "node", f"index={index}", "project=hopper-attention", f"interpreter={sys.executable}", "--json")
    found = json.loads(hopperforge(*words, home=tmp_path).out)
    assert found["chosen"] == wheel.name
    assert found["rejected"] == []

    page = (index / "all" / "simple" / "hopper-attention" / "index.html").as_uri()
    site = tmp_path / "site"
    install = ("install", "--no-deps", "--no-index", "--find-links", page, "--target", site, "hopper-attention")
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    assert (site / "hopper_attention" / "__init__.py").is_file()


def test_a_container_is_refused_for_nothing_is_compiled(tmp_path: Path) -> None:
    refused = hopperforge("plan", *WORDS, "engine=docker", home=tmp_path)
    assert refused.status == 2
    assert "engine=docker, but nothing of recipe hopper-attention is compiled" in refused.err
