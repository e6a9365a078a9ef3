"""A bundle unpacked and installed by real pip and uv that may ask no index; what was changed in it is refused."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.version import Version
from ruamel.yaml import YAML
from tests.integration.command import hopperforge
from tests.integration.fake_node import H100, smi, torch
from tests.integration.snippets import snippets
from tests.integration.stand_in import framework_wheel
from tests.unit.node_zoo import TORCH
from tests.unit.publish_zoo import STABLE, shelve

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

UV = Path(sys.executable).with_name("uv")
# Where an installer would go if it did not keep to the bundle: nobody answers there.
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a stand-in for torch, as a node has it."""
    home = tmp_path_factory.mktemp("bundle")
    shelve(home / "wheelhouse", STABLE)
    offered = home / "offered"
    offered.mkdir()
    framework_wheel(offered)
    # pip's settings are the machine's: here they name a folder in the place of an index
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(offered), "PIP_CONFIG_FILE": os.devnull}
    words = ("cuda=13.0", "torch=2.11", "python=3.12", "with=torch", f"to={home / 'b.tar'}")
    made = hopperforge("bundle", *words, home=home, env=settings)
    assert made.status == 0, made.err
    with tarfile.open(home / "b.tar") as archive:
        archive.extractall(home, filter="data")
    return home / "fa3-fwd-cu130-torch2.11-py3.12"


@pytest.fixture
def copy(unpacked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked, tmp_path / "a b"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with this machine's own pip, which is an old one on some, and one with the newest."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def run(words: list[str | Path], bundle: Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    path = f"{UV.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=bundle, env={**os.environ, **NOWHERE, "PATH": path, **(env or {})}, capture_output=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def installed(python: Path) -> set[str]:
    ask = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    done = subprocess.run([python, "-I", "-c", ask], check=True, capture_output=True, text=True)
    return {one for one in done.stdout.split() if one.startswith(("fa3", "torch"))}


def remove(python: Path) -> None:
    subprocess.run([UV, "pip", "uninstall", "--quiet", "--python", python, "fa3-fwd", "torch"], check=True)


BOTH = {f"fa3-fwd=={STABLE}", "torch==2.11.0"}


def test_the_script_installs_by_pip(copy: Path, python: Path) -> None:
    status, said = run(["./install.sh", "--quiet"], copy, {"PYTHON": str(python)})
    assert status == 0, said
    assert installed(python) == BOTH
    remove(python)


def test_the_script_installs_by_uv_where_there_is_no_pip(copy: Path, tmp_path: Path) -> None:
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "bare"], check=True)
    bare = tmp_path / "bare" / "bin" / "python"
    status, said = run(["./install.sh"], copy, {"PYTHON": str(bare)})
    assert status == 0, said
    assert installed(bare) == BOTH


def commands(bundle: Path) -> list[str]:
    """The lines of the README that install, but the script."""
    lines = [line.partition("   #")[0].strip() for line in (bundle / "README.txt").read_text().splitlines()]
    return [line for line in lines if " pip install " in line]


def test_every_line_of_the_readme_installs(copy: Path, python: Path) -> None:
    done = subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True, text=True)
    old = Version(done.stdout.split()[1]) < Version("26.1")
    lines = [line for line in commands(copy) if not (old and "pip install --no-index --no-deps -r pylock" in line)]
    assert len(lines) == (3 if old else 4)
    for line in lines:
        words = line.replace("python3", str(python)).split()
        words[0] = str(UV) if words[0] == "uv" else words[0]
        more = ["--python", str(python)] if words[0] == str(UV) else []
        # this Python need not be 3.12, which the lock is for
        lock = copy / "pylock.toml"
        lock.write_text(
            "".join(row for row in lock.read_text().splitlines(keepends=True) if "requires-python" not in row)
        )
        status, said = run([*words, *more], copy)
        assert status == 0, said
        assert installed(python) == BOTH, line
        remove(python)


@pytest.mark.parametrize("name", ["pool", "wheels"])
def test_a_changed_wheel_is_refused_by_sums_pip_and_uv(copy: Path, python: Path, name: str) -> None:
    (wheel,) = (copy / name).rglob("*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.comment = b"the same members in other bytes"
    status, said = run(["./install.sh"], copy, {"PYTHON": str(python)})
    assert status != 0
    assert f"{wheel.relative_to(copy)}: FAILED" in said
    for line in commands(copy)[:2]:
        words = line.replace("python3", str(python)).split()
        words = [str(UV), *words[1:], "--python", str(python)] if words[0] == "uv" else words
        status, said = run([*words], copy)
        assert status != 0
        assert "hash" in said.lower()
    assert installed(python) == set()


@pytest.mark.parametrize("more", [["-r"], ["fa3-fwd", "-c"]])
def test_constraints_of_a_cell_hold_the_hash(copy: Path, python: Path, more: list[str]) -> None:
    file = copy / "cu130" / "torch2.11" / "constraints.txt"
    words = ["--no-deps", "--no-index", "--find-links", "pool/fa3-fwd", *more, str(file)]
    uv: list[str | Path] = [UV, "pip", "install", "--python", python, *words]
    pip: list[str | Path] = [python, "-m", "pip", "install", *words]
    for command in [uv] if "-c" in more else [uv, pip]:
        status, said = run(command, copy)
        assert status == 0, said
        assert installed(python) == {f"fa3-fwd=={STABLE}"}
        remove(python)
    file.write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", file.read_text()))
    status, said = run(uv, copy)
    assert status != 0
    assert "hash" in said.lower()


def test_the_doctor_reads_the_bundle(copy: Path) -> None:
    status, said = run([sys.executable, "doctor.py", "--index", ".", "--cuda", "13.0", "--torch", "2.11"], copy)
    assert status == 21, said  # a GPU is missing here, and was not assumed
    assert f"takes fa3_fwd-{STABLE}-" in said


def test_a_torch_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    shelve(tmp_path / "wheelhouse", STABLE)
    words = ("cuda=13.0", "torch=2.11", "python=3.12", "with=torch", f"to={tmp_path / 'b.tar'}")
    ended = hopperforge("bundle", *words, home=tmp_path, env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)})
    assert ended.status == 5
    assert "torch==2.11.* cannot be fetched for Python 3.12.0 with glibc 2.28" in ended.err
    assert not (tmp_path / "b.tar").exists()


def test_the_prolog_of_the_documents_lets_fitting_nodes_pass(copy: Path, python: Path, tmp_path: Path) -> None:
    (prolog,) = snippets("air-gapped", "sh")
    script, log = tmp_path / "prolog", tmp_path / "log"
    script.write_text(prolog)
    script.chmod(0o755)
    torch(tmp_path, version=TORCH.replace(b"2.6.0+cu124", b"2.11.0+cu130").replace(b"12.4", b"13.0"))
    bare = {"BUNDLE": str(copy), "PYTHON": str(python), "PYTHONPATH": str(tmp_path / "site"), "LOG": str(log)}
    assert run([script], copy, bare)[0] == 1
    assert "there is no NVIDIA driver" in log.read_text()
    node = bare | {"PATH": f"{smi(tmp_path, H100).parent}:{os.environ['PATH']}"}
    for answer in ("fits (exit code 20)", "installed (exit code 0)"):
        status, said = run([script], copy, node)
        assert status == 0, said
        assert answer in log.read_text()
    assert installed(python) >= BOTH
    remove(python)


def test_the_init_container_of_the_documents_installs_into_a_folder(copy: Path, python: Path, tmp_path: Path) -> None:
    pod, play = (YAML(typ="safe").load(text) for text in snippets("air-gapped", "yaml"))
    (init,) = pod["spec"]["initContainers"]
    (server,) = pod["spec"]["containers"]
    shared = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert server["env"] == [{"name": "PYTHONPATH", "value": shared["fa3"]}]
    assert {mount["name"] for mount in init["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    places = {shared["fa3"]: str(tmp_path / "fa3"), "/bundles/fa3-fwd-cu128-torch2.9/install.sh": "./install.sh"}
    status, said = run([places.get(word, word) for word in init["command"]], copy, {"PYTHON": str(python)})
    assert status == 0, said
    assert (tmp_path / "fa3" / "fa3_fwd" / "__init__.py").is_file()
    unpack, look, install = play[0]["tasks"]
    assert unpack["ansible.builtin.unarchive"]["src"] == "{{ bundle }}.tar"
    assert (look["failed_when"], install["when"]) == ("doctor.rc not in [0, 20]", "doctor.rc == 20")
    for task in (look, install):
        program = task["ansible.builtin.command"].partition("/opt/{{ bundle }}/")[2].split()[0]
        assert os.access(copy / program, os.X_OK)
