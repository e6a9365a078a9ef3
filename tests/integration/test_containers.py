"""Containers for real: an image from Debian's packages, a build in it with everything killed once, docker and podman.

The tests of this module run in order and share one cache, one wheelhouse and one daemon of their own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, MakeHome, Running, hopperforge
from tests.integration.daemon import Daemon
from tests.integration.registry import serve_registry
from tests.integration.serving import serving
from tests.integration.snippets import snippets
from tests.integration.stand_in import GUARDED, LOAD, framework_wheel
from tests.reproduced import complaint
from tests.unit import wheel_zoo as zoo
from tests.unit.index_zoo import entry

from hopperforge.config.project import load_project
from hopperforge.index.catalog import Catalog
from hopperforge.index.whole import CATALOG_NAME, index_files
from hopperforge.model.record import Record
from hopperforge.model.versions import TorchVersion
from hopperforge.model.wheel import GateResult
from hopperforge.run.engine import Client
from hopperforge.run.files import sha256_file, write_atomic
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import platform_tags
from hopperforge.stages.builder import Containers
from hopperforge.stages.framework import framework_folder
from hopperforge.stages.import_container import BasePython, open_base, prove_import_in
from hopperforge.stages.wheel_archive import read_wheel, write_wheel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

(CELL,) = (cell for cell in load_project(PROJECT).matrix.ci if cell.engine == "docker")
WORDS = ("recipe=fa3-fwd", "profile=hdim128-bf16", f"cuda={CELL.cuda}", f"torch={CELL.torch}")
IMAGE = ("image", f"cuda={CELL.cuda}", "engine=docker")
# pthread_create moved into libc itself with glibc 2.34, which tests run on or newer
NEEDS_GLIBC_2_34 = """
#include <pthread.h>
extern "C" void* PyInit__C(void* (*run)(void*)) { pthread_t t; return pthread_create(&t, 0, run, 0) ? run(0) : 0; }
"""
PODMAN = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@pytest.fixture(scope="module")
def home(make_home: MakeHome) -> Path:
    return make_home("containers")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # not in pytest's folder: the path of a socket has to be short
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as folder:
        daemon = Daemon(Path(folder))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(PODMAN)
    environment = {"CONTAINERS_CONF": str(settings)}
    yield environment
    listed = ["podman", "images", "--quiet", "--filter", "reference=*hopperforge*"]
    images = subprocess.run(listed, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    names = sorted(set(images.stdout.split()))
    subprocess.run(["podman", "rmi", "--force", *names], env={**os.environ, **environment}, check=True)


def report(home: Path) -> dict[str, object]:
    (build,) = json.loads((home / "wheelhouse" / "report.json").read_text())["builds"]
    return dict(build)


def path_without(program: str, home: Path) -> str:
    """A PATH that has everything but `program`."""
    folder = home / f"without-{program}"
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for found in Path(place).glob("*"):
            link = folder / found.name
            if found.name != program:
                link.unlink(missing_ok=True)
                link.symlink_to(found)
    return str(folder)


def project_with_base(root: Path, name: str, image: str) -> Path:
    """A checkout of its own with one more base, of a registry."""
    for folder in ("recipes", "patches", "flash-attention", "image"):
        shutil.copytree(PROJECT / folder, root / folder)
    for file in ("matrix.yaml", "Dockerfile.build"):
        shutil.copyfile(PROJECT / file, root / file)
    bases = root / "image" / "bases.yaml"
    added = f'  {name}: {{kind: registry, image: "{image}", tag: 2026.01.01, floor: manylinux_2_28_x86_64}}'
    bases.write_text(bases.read_text().replace("\nbases:\n", f"\nbases:\n{added}\n"))
    return root


def push(daemon: Daemon, image: str, name: str) -> None:
    daemon.docker("tag", image, name)
    daemon.docker("push", name)
    daemon.docker("rmi", name)


def clients(home: Path) -> list[int]:
    """The docker clients whose containers see something of `home`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, words = (folder / "comm").read_text().strip(), (folder / "cmdline").read_bytes()
        except OSError:  # it ended while we looked
            continue
        if name == "docker" and os.fsencode(home) in words:
            found.append(int(folder.name))
    return found


def half_made(home: Path) -> list[str]:
    return [str(path) for path in (home / "cache" / "work").rglob("*") if path.suffix != ".lock"]


def test_the_doctor_says_the_command_and_starts_nothing(home: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{home}/nowhere"}
    ended = hopperforge("doctor", "engine", home=home, env=nowhere)
    assert ended.status == 0, ended.err
    assert "docker: no docker daemon answers" in ended.out
    assert "dockerd --iptables=false" in ended.out
    refused = hopperforge("plan", *WORDS, "engine=docker", home=home, env=nowhere)
    assert refused.status == 5
    assert "no docker daemon answers" in refused.err


def test_an_engine_that_works_is_taken_without_being_asked_for(home: Path, daemon: Daemon) -> None:
    taken = hopperforge("plan", *WORDS, home=home, env={"DOCKER_HOST": daemon.host})
    assert taken.status == 0, taken.err
    assert "engine=docker" in taken.out
    # without what makes a base, the engine is no use
    without = {"DOCKER_HOST": daemon.host, "PATH": path_without("mmdebstrap", home)}
    left = hopperforge("plan", *WORDS, home=home, env=without)
    assert left.status == 0, left.err
    assert "engine=host" in left.out
    assert "docker works, but base bullseye is made by mmdebstrap, which is missing" in left.out


def test_an_engine_that_only_answers_is_passed_over(home: Path, podman: Mapping[str, str]) -> None:
    nowhere = {**podman, "DOCKER_HOST": f"unix://{home}/nowhere"}
    taken = hopperforge("plan", *WORDS, home=home, env=nowhere)
    assert "engine=podman" in taken.out, taken.err
    broken = home / "broken.conf"
    broken.write_text(PODMAN.replace('"runc"', '"/bin/false"'))
    left = hopperforge("plan", *WORDS, home=home, env={**nowhere, "CONTAINERS_CONF": str(broken)})
    assert left.status == 0, left.err
    assert "engine=host" in left.out
    assert "runs no container" in left.out


def test_an_image_is_made_once(home: Path, daemon: Daemon) -> None:
    first = hopperforge(*IMAGE, home=home, env={"DOCKER_HOST": daemon.host})
    assert first.status == 0, first.err
    assert "building hopperforge-build" in first.err
    started = time.monotonic()
    second = hopperforge(*IMAGE, home=home, env={"DOCKER_HOST": daemon.host, "PIP_INDEX_URL": "http://127.0.0.1:9/"})
    assert (second.status, second.out) == (0, first.out)
    assert "building" not in second.err
    assert time.monotonic() - started < 20


def test_equal_inputs_made_elsewhere_are_the_same_image(home: Path, daemon: Daemon) -> None:
    # apt treats folders that everyone may enter differently, and pytest's are not of that kind
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        Path(folder).chmod(0o755)
        ended = hopperforge(*IMAGE, home=Path(folder), env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert "making base" in ended.err
    assert "building" not in ended.err
    assert ended.out == hopperforge(*IMAGE, home=home, env={"DOCKER_HOST": daemon.host}).out


def test_a_base_moved_under_its_tag_is_not_taken(home: Path, daemon: Daemon) -> None:
    (tag,) = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "hopperforge-base").stdout.split()
    (built,) = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "hopperforge-build").stdout.split()
    daemon.docker("tag", built, tag)
    ended = hopperforge(*IMAGE, home=home, env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert "importing bullseye" in ended.err


def test_a_base_from_a_registry_is_held_to_its_digest(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    (made,) = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "hopperforge-base").stdout.split()
    with serve_registry(tmp_path / "registry") as address:
        pulled = f"{address}/team/bullseye"
        project = project_with_base(tmp_path / "project", "team", pulled)
        push(daemon, made, f"{pulled}:2026.01.01")
        words = (*IMAGE, "base=team")
        first = hopperforge(*words, home=home, project=project, env={"DOCKER_HOST": daemon.host})
        assert first.status == 0, first.err
        assert "base team was not known before" in first.err
        lock = project / "image" / "bases.lock.json"
        known = json.loads(lock.read_text())
        digest = known["team"]
        # the tag moves to something else, and this engine forgets what it had
        push(daemon, "hopperforge-trial:1", f"{pulled}:2026.01.01")
        daemon.docker("rmi", f"{pulled}@{digest}")
        again = hopperforge(*words, home=home, project=project, env={"DOCKER_HOST": daemon.host})
        assert (again.status, again.out) == (0, first.out), again.err
        # what is written down is in the registry no more: what the tag is now is refused
        gone = "sha256:" + "0" * 64
        lock.write_text(json.dumps({**known, "team": gone}))
        refused = hopperforge(*words, home=home, project=project, env={"DOCKER_HOST": daemon.host})
    assert refused.status == 5
    assert f"cannot pull {pulled}@{gone}, which base team is" in refused.err
    assert "remove team from image/bases.lock.json" in refused.err


def test_ctrl_c_leaves_no_container_and_no_half_file(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    run.wait_for("0/2 units")
    daemon.wait_for_containers(2)
    assert run.send(signal.SIGINT) == 130
    assert daemon.containers() == []
    assert half_made(home) == []


def test_a_killed_client_leaves_no_container(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "jobs=1", "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    for moment in ("0/2 units", "tried once more, alone"):
        run.wait_for(moment)
        daemon.wait_for_containers(1)
        (client,) = clients(home)
        os.kill(client, signal.SIGKILL)
    assert run.finish() == 6
    assert daemon.containers() == []
    assert half_made(home) == []


def test_a_killed_container_is_tried_again_and_then_reported(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "jobs=1", "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    for moment in ("0/2 units", "tried once more, alone"):
        run.wait_for(moment)
        daemon.docker("kill", *daemon.wait_for_containers(1))
    assert run.finish() == 6
    assert any("was killed while compiling" in line for line in run.lines)
    assert daemon.containers() == []
    assert half_made(home) == []


def test_after_everything_was_killed_a_rerun_finishes(home: Path, daemon: Daemon) -> None:
    run = Running("build", *WORDS, "engine=docker", home=home, env={"DOCKER_HOST": daemon.host})
    run.wait_for("0/2 units")
    daemon.wait_for_containers(2)
    assert run.send(signal.SIGKILL) == -signal.SIGKILL
    daemon.end(signal.SIGKILL)
    daemon.start()
    ended = hopperforge("build", *WORDS, home=home, env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert daemon.containers() == []
    assert half_made(home) == []
    assert clients(home) == []


def test_the_tag_is_proven_at_the_bases_floor_or_lower(home: Path) -> None:
    record = json.loads(Path(f"{report(home)['wheel']}.json").read_text())
    assert (record["engine"], record["image"]["base"]) == ("docker", "bullseye")
    assert record["host_compiler"]["version"].startswith("10.2")
    (tag,) = record["wheel"]["platform_tags"]
    assert tag in {"manylinux_2_17_x86_64", "manylinux_2_24_x86_64", "manylinux_2_28_x86_64"}
    (gate,) = [gate for gate in record["gates"] if gate["name"] == "platform-tag"]
    assert gate["passed"]


def test_peaks_are_measured_inside_the_container(home: Path) -> None:
    record = json.loads(Path(f"{report(home)['wheel']}.json").read_text())
    assert max(unit["peak_rss"] for unit in record["pack"]["units"]) > 3_000_000_000


def test_this_machine_is_one_more_witness_of_the_stored_hashes(home: Path) -> None:
    place = f"{report(home)['wheel']}.json"
    said = complaint(Record.from_json(Path(place).read_bytes(), place), " ".join((*WORDS, "engine=docker")))
    assert not said, said


def test_podman_gives_the_same_bytes(home: Path, podman: Mapping[str, str]) -> None:
    before = report(home)
    for path in (home / "wheelhouse").glob("*.whl*"):
        path.unlink()
    ended = hopperforge("build", *WORDS, "engine=podman", home=home, env=podman)
    assert ended.status == 0, ended.err
    after = report(home)
    assert (after["units_compiled"], after["sha256"]) == (0, before["sha256"])


def test_a_wheel_of_an_index_is_bound_again_from_its_record_alone(
    home: Path, podman: Mapping[str, str], tmp_path: Path
) -> None:
    wheel = Path(str(report(home)["wheel"]))
    published = hopperforge("publish", f"to={tmp_path / 'index'}", f"wheel={wheel.name}", "--allow-unproven", home=home)
    assert published.status == 0, published.err
    with serving(tmp_path / "index", home) as address:
        url = f"{address}pool/fa3-fwd/{wheel.name.replace('+', '%2B')}"
        ended = hopperforge("reproduce", f"wheel={url}", "objects=cached", "engine=podman", home=home, env=podman)
    assert ended.status == 0, ended.err
    assert f"the same bytes, bound again from the objects at hand: {report(home)['sha256']}" in ended.out
    assert half_made(home) == []


def proofs(wheel: Path) -> dict[str, tuple[bool, str]]:
    gates = json.loads(Path(f"{wheel}.json").read_text())["gates"]
    return {gate["name"]: (gate["passed"], gate["detail"]) for gate in gates if gate["name"].startswith("import")}


def retagged(wheel: Path, tag: str, folder: Path) -> Path:
    """The same wheel, with its record, for another platform."""
    archive = read_wheel(wheel)
    (old,) = platform_tags(wheel)
    meta = f"{archive.info}/WHEEL"
    files = {**archive.files, meta: archive.files[meta].replace(old.encode(), tag.encode())}
    final = folder / wheel.name.replace(old, tag)
    write_wheel(final, replace(archive, files=files), epoch=0)
    record = json.loads(Path(f"{wheel}.json").read_text())
    record["wheel"] |= {"file": final.name, "sha256": sha256_file(final), "platform_tags": [tag]}
    Path(f"{final}.json").write_text(json.dumps(record))
    return final


def test_a_wheel_for_a_newer_glibc_is_refused_by_the_bases_own_pip(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    wheel = retagged(Path(str(report(home)["wheel"])), "manylinux_2_99_x86_64", tmp_path)
    words = (f"wheel={wheel}", "torch=2.9", "base=trixie", "engine=docker")
    environment = {"DOCKER_HOST": daemon.host, "HOPPERFORGE_WHEELHOUSE": str(tmp_path)}
    ended = hopperforge("verify", *words, home=home, env=environment)
    assert ended.status == 8, ended.err
    assert "the tag manylinux_2_99_x86_64 is for glibc 2.99 or newer, and trixie has 2.41" in ended.err
    passed, detail = proofs(wheel)["import with torch 2.9 in python 3.13 on trixie"]
    assert not passed
    assert "is not a supported wheel on this platform" in detail
    assert daemon.containers() == []


def workspace_of(home: Path, daemon: Daemon, folder: Path) -> Workspace:
    environment = {**os.environ, "DOCKER_HOST": daemon.host}
    return replace(zoo.workspace(folder), project=PROJECT, cache=home / "cache", environ=environment)


def base_python(name: str, workspace: Workspace) -> BasePython:
    facts = load_project(PROJECT).images
    assert facts is not None
    client = Client(program="docker", environ=workspace.environ)
    return open_base(Containers(client=client, facts=facts, base=facts.bases[name], keep=False), workspace)


def test_a_library_that_needs_a_newer_glibc_than_its_tag_says_fails(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    workspace = workspace_of(home, daemon, tmp_path)
    place = base_python("bullseye", workspace)
    torch = str(framework_wheel(tmp_path))

    def prove(library: bytes) -> GateResult:
        changes = {"fa3_fwd_interface.py": LOAD + GUARDED, zoo.LIBRARY: library}
        wheel = zoo.write(tmp_path, zoo.files(changes, tag=zoo.TAG), tag=zoo.TAG)
        return prove_import_in(
            wheel, promise=zoo.PROMISE, torch=TorchVersion(2, 11), place=place, workspace=workspace, requirement=torch
        )

    good = prove(zoo.library())
    assert (good.passed, good.name) == (True, "import with torch 2.11 in python 3.9 on bullseye"), good.detail
    assert "beside torch 2.11.0 in Python 3.9.2 on glibc 2.31" in good.detail
    bad = prove(zoo.library(NEEDS_GLIBC_2_34))
    assert not bad.passed
    assert "version `GLIBC_2.34' not found" in bad.detail
    assert daemon.containers() == []


def test_the_doctor_runs_in_the_oldest_python(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    place = base_python("bullseye", workspace_of(home, daemon, tmp_path))
    for name, data in index_files(Catalog.of([entry()])).items():
        write_atomic(tmp_path / "index" / name, data)
    write_atomic(tmp_path / "index" / CATALOG_NAME, Catalog.of([entry()]).to_json())
    words = ("python3", "-W", "error", "/index/doctor.py", "--index", "/index")
    mount = f"{tmp_path / 'index'}:/index:ro"
    command = ("run", "--rm", "--network=none", "--volume", mount, place.engine.image, *words)
    ended = daemon.docker(*command, check=False)
    assert (ended.returncode, ended.stderr) == (21, "")
    assert (
        "glibc 2.31\nPython    3.9.2, /usr/bin/python3\nGPU       none\ndriver    none\ntorch     none\n"
        in ended.stdout
    )
    assert f"takes {entry().file}" in ended.stdout


def test_what_the_readme_says_ci_proves_of_containers(home: Path, daemon: Daemon) -> None:
    wheel = Path(str(report(home)["wheel"]))
    words = (f"wheel={wheel}", f"torch={CELL.torch}", "base=trixie", "engine=docker")
    ended = hopperforge("verify", *words, home=home, env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    passed, detail = proofs(wheel)[f"import with torch {CELL.torch} in python 3.13 on trixie"]
    assert passed
    assert re.search(r"beside torch 2\.9\.\d\+cu128 in Python 3\.13\.\d+ on glibc 2\.41", detail)
    assert daemon.containers() == []
    assert half_made(home) == []


def test_a_bundle_installs_and_imports_with_no_network(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    tar = tmp_path / "fa3-fwd-cu128-torch2.9.tar"
    words = ("cuda=12.8", f"torch={CELL.torch}", "profile=hdim128-bf16", f"to={tar}")
    made = hopperforge("bundle", *words, "--allow-unproven", home=home)  # there is no GPU here to prove it on
    assert made.status == 0, made.err
    (dockerfile,) = snippets("air-gapped", "dockerfile")
    (script,) = re.findall(r"^RUN ((?:.*\\\n)*.*)", dockerfile, re.MULTILINE)
    workspace = workspace_of(home, daemon, tmp_path)
    place = base_python("trixie", workspace)
    framework = framework_folder(place.target, f"torch=={CELL.torch}.*", workspace)
    mounts = {tar: "/bundle.tar", framework: "/framework", Path(sys.executable).with_name("uv"): "/usr/bin/uv"}
    inside = f"""set -eux
test "$(ls /sys/class/net)" = lo
python3 -m venv /opt/venv
export PATH=/opt/venv/bin:$PATH PYTHONPATH=/framework
tar xf /bundle.tar -C /tmp
{script}
cd /
python3 -c 'import fa3_fwd_interface as it, torch; print("by pip beside", torch.__version__, it.flash_attn_func)'
uv venv --offline /tmp/bare
tar xf /bundle.tar -C /tmp
PYTHON=/tmp/bare/bin/python /tmp/fa3-fwd-cu128-torch2.9/install.sh
/tmp/bare/bin/python -c 'import fa3_fwd_interface as it; print("by uv", it.flash_attn_func)'
"""
    options = [word for outside, at in mounts.items() for word in ("--volume", f"{outside}:{at}:ro")]
    ended = daemon.docker(
        "run", "--rm", "--network=none", *options, place.engine.image, "sh", "-c", inside, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "installed (exit code 0)" in ended.stdout
    assert re.search(r"by pip beside 2\.9\.\d\+cu128 <function flash_attn_func", ended.stdout)
    assert "by uv <function flash_attn_func" in ended.stdout
    assert daemon.containers() == []


def test_the_wheel_imports_beside_a_real_torch(home: Path) -> None:
    wheel = str(report(home)["wheel"])
    ended = hopperforge("verify", f"wheel={wheel}", "torch=2.11", home=home)
    assert ended.status == 0, ended.err


def test_the_cpp_package_links_on_the_oldest_and_the_newest_system(home: Path, daemon: Daemon, tmp_path: Path) -> None:
    """By g++ against the unpacked tar, both libraries, with no network; CMake and pkg-config are test_cpp_package's."""
    words = ("build", "recipe=fa3-cpp", *WORDS[1:3], "engine=docker")
    ended = hopperforge(*words, home=home, env={"DOCKER_HOST": daemon.host})
    assert ended.status == 0, ended.err
    assert report(home)["units_compiled"] == 0  # all are those of the torch wheel
    (tarball,) = (home / "wheelhouse").glob("hopperforge_fa3-*.tar.zst")
    tmp_path.chmod(0o755)
    subprocess.run(["tar", "--zstd", "-xf", tarball, "-C", tmp_path], check=True)
    (prefix,) = tmp_path.iterdir()
    compiled = "g++ -std=c++17 -Wall -Wextra -Werror /p/example/attention.cpp -I/p/include"
    inside = f"""set -eux
{compiled} -L/p/lib -lhopperforge_fa3 -Wl,-rpath,/p/lib -ldl -o /tmp/shared
{compiled} /p/lib/libhopperforge_fa3.a -ldl -lrt -lpthread -o /tmp/static
/tmp/shared
/tmp/static
"""
    for name in ("bullseye", "trixie"):
        place = base_python(name, workspace_of(home, daemon, tmp_path / name))
        command = ("run", "--rm", "--network=none", "--volume", f"{prefix}:/p:ro", place.engine.image)
        done = daemon.docker(*command, "sh", "-c", inside, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("NO_DEVICE: this library needs a GPU of compute capability 9.0") == 2


def test_the_cache_holds_nothing_that_clean_does_not_know(home: Path) -> None:
    ended = hopperforge("clean", "what=cache", home=home)
    assert ended.status == 0, ended.err
    assert not (home / "cache").exists()
