"""What travels to a worker and what it makes of it: real archives, a toolkit of scripts, the machine's own g++."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hopperforge.errors import SourceError
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitOrigin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.files import Lock
from hopperforge.run.remote import Home
from hopperforge.run.workspace import Workspace
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.patch import kernel_tree_hash
from hopperforge.stages.remote_units import Input, Kit, compiler_difference, find_kit, keep_input, pack_input
from hopperforge.stages.toolkit import PARTS, toolkit_fingerprint
from hopperforge.stages.unit_job import sweep_work

ENVIRON = {"PATH": os.environ.get("PATH", os.defpath)}


def workspace(cache: Path) -> Workspace:
    return Home(cache=cache, environ=ENVIRON).workspace(Recorder())


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A kit as an installed toolkit has it: include/ is a link to the folder of the target."""
    source, root = tmp_path / "source", tmp_path / "toolkit"
    headers = root / "targets" / "x86_64-linux" / "include"
    for folder in (source / "hopper", source / "csrc" / "deep", headers / "cuda"):
        folder.mkdir(parents=True)
    (source / "hopper" / "a.cu").write_text("kernel", encoding="utf-8")
    (source / "hopper" / "setup.py").write_text("not included by any unit", encoding="utf-8")
    (source / "csrc" / "deep" / "x").write_text("header without a suffix", encoding="utf-8")
    (headers / "cuda" / "runtime.h").write_text("runtime", encoding="utf-8")
    (root / "include").symlink_to("targets/x86_64-linux/include")
    for place in PARTS.values():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text("#!/bin/sh\n", encoding="utf-8")
        (root / place).chmod(0o755)
    (root / "bin" / "nsys").write_text("not a part", encoding="utf-8")
    toolkit = Toolkit(
        version=ToolkitVersion.parse("13.0"),
        release="13.0.88",
        origin=ToolkitOrigin.SYSTEM,
        root=root,
        fingerprint=toolkit_fingerprint(root, workspace(tmp_path / "cache")),
    )
    compiler = find_host_compiler(ENVIRON, 99)
    return Kit(source=source, kernel_tree=kernel_tree_hash(source), toolkit=toolkit, compiler=compiler, threads=1)


def keep(data: bytes, kit: Kit, thing: Input, cache: Path) -> None:
    keep_input(data, hashlib.sha256(data).hexdigest(), kit, thing, workspace(cache))


def test_what_stands_at_the_planned_place_is_used_there(kit: Kit, tmp_path: Path) -> None:
    found = find_kit(kit, Home(cache=tmp_path / "worker", environ=ENVIRON))
    assert found.inputs == {Input.SOURCE: kit.source, Input.TOOLKIT: kit.toolkit.root}
    assert (found.compiler, found.reason) == (kit.compiler.path, None)


def test_other_bytes_at_the_planned_place_are_not_used(kit: Kit, tmp_path: Path) -> None:
    (kit.toolkit.root / "bin" / "ptxas").write_text("another", encoding="utf-8")
    (kit.source / "hopper" / "a.cu").write_text("another", encoding="utf-8")
    assert find_kit(kit, Home(cache=tmp_path / "worker", environ=ENVIRON)).inputs == {}


def test_what_is_sent_arrives_whole_and_nothing_else_is_sent(kit: Kit, tmp_path: Path) -> None:
    cache = tmp_path / "worker"
    for thing in Input:
        keep(pack_input(kit, thing), kit, thing, cache)
    away = replace(kit, source=tmp_path / "none", toolkit=replace(kit.toolkit, root=tmp_path / "none"))
    found = find_kit(away, Home(cache=cache, environ=ENVIRON))
    assert found.reason is None
    source, toolkit = found.inputs[Input.SOURCE], found.inputs[Input.TOOLKIT]
    assert sorted(path.name for path in source.rglob("*") if path.is_file()) == ["a.cu", "x"]
    assert os.access(toolkit / "bin" / "nvcc", os.X_OK)
    assert (toolkit / "targets" / "x86_64-linux" / "include" / "cuda" / "runtime.h").is_file()
    assert not (toolkit / "bin" / "nsys").exists()
    assert list((cache / "work").iterdir()) == []


def test_what_was_damaged_on_its_way_or_is_something_else_is_refused(kit: Kit, tmp_path: Path) -> None:
    data = pack_input(kit, Input.SOURCE)
    with pytest.raises(SourceError, match="the source arrived damaged"):
        keep_input(data[:-1], hashlib.sha256(data).hexdigest(), kit, Input.SOURCE, workspace(tmp_path / "worker"))
    other = replace(kit, kernel_tree="0" * 64)
    with pytest.raises(SourceError, match="the source that arrived is not the plan's"):
        keep(data, other, Input.SOURCE, tmp_path / "worker")
    assert find_kit(other, Home(cache=tmp_path / "worker", environ=ENVIRON)).inputs.keys() == {Input.TOOLKIT}


def test_what_a_worker_keeps_is_checked_again_and_mended(kit: Kit, tmp_path: Path) -> None:
    data = pack_input(kit, Input.TOOLKIT)
    keep(data, kit, Input.TOOLKIT, tmp_path / "worker")
    (kept,) = (tmp_path / "worker" / "toolkits").glob("*/bin/ptxas")
    kept.write_text("rotten", encoding="utf-8")
    away = replace(kit, toolkit=replace(kit.toolkit, root=tmp_path / "none"))
    home = Home(cache=tmp_path / "worker", environ=ENVIRON)
    assert Input.TOOLKIT not in find_kit(away, home).inputs
    keep(data, kit, Input.TOOLKIT, tmp_path / "worker")
    assert Input.TOOLKIT in find_kit(away, home).inputs


def test_a_toolkit_that_does_not_run_there_is_a_reason(kit: Kit, tmp_path: Path) -> None:
    nvcc = kit.toolkit.root / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho no such library; exit 127\n", encoding="utf-8")
    known = toolkit_fingerprint(kit.toolkit.root, workspace(tmp_path / "cache"))
    broken = replace(kit, toolkit=replace(kit.toolkit, fingerprint=known))
    reason = find_kit(broken, Home(cache=tmp_path / "worker", environ=ENVIRON)).reason
    assert reason == f"the toolkit does not run on it: {nvcc} ended with status 127 (no such library)"


def test_a_worker_without_a_compiler_says_so(kit: Kit, tmp_path: Path) -> None:
    away = replace(kit, compiler=replace(kit.compiler, path=tmp_path / "none"))
    reason = find_kit(away, Home(cache=tmp_path / "worker", environ={"PATH": str(tmp_path)})).reason
    assert reason == "there is no C++ compiler: g++ is not on PATH, and nvcc needs one"


def test_compilers_are_compared_part_by_part() -> None:
    ours = HostCompiler(path=Path("/usr/bin/g++"), version="12.2.0", fingerprint={"driver": "1", "as": "1"})
    theirs = HostCompiler(path=Path("/opt/g++"), version="13.1.0", fingerprint={"driver": "2", "as": "1", "ld": "1"})
    assert compiler_difference(ours, replace(ours, path=Path("/elsewhere"))) is None
    assert (
        compiler_difference(ours, theirs)
        == "its host compiler /opt/g++ (g++ 13.1.0) is not the plan's g++ 12.2.0: other driver, ld"
    )


def test_the_sweep_leaves_what_is_still_worked_on(tmp_path: Path) -> None:
    for name in ("dead", "alive"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()
    with Lock(tmp_path / "alive.lock"):
        sweep_work(tmp_path)
        assert not (tmp_path / "dead").exists()
        assert (tmp_path / "alive").exists()
