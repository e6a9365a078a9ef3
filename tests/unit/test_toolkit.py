"""The toolkit stage: which toolkit is taken, why others are not, and a key that depends on bytes alone."""

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.deb_zoo import apt, deb, path_with

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.matrix import Matrix
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.toolkit import DebianPackage, PinnedFile, Toolkit, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.toolkit import obtain_toolkit, toolkits_at_hand

CUDA_130 = ToolkitVersion.parse("13.0")
CUDA_132 = ToolkitVersion.parse("13.2")
CUDA_124 = ToolkitVersion.parse("12.4")

# It finds itself without any other program: the tests give it a PATH with nothing else on it.
NVCC = """#!/bin/sh
here=${{0%/*}}
case "$1" in
  --version) echo "nvcc: NVIDIA (R) Cuda compiler driver"
             echo "Cuda compilation tools, release {short}, V{release}";;
  --dryrun) echo '#$ _SPACE_= '; echo "#$ TOP=$here/.."; echo '#$ INCLUDES="-I..." ';;
  *) exit 1;;
esac
"""
PARTS = {
    "bin/nvcc.profile": "profile",
    "bin/cudafe++": "front end",
    "bin/ptxas": "assembler",
    "bin/fatbinary": "fat",
    "bin/nvlink": "link",
    "nvvm/bin/cicc": "compiler",
    "nvvm/libdevice/libdevice.10.bc": "bitcode",
    "lib/libcudart_static.a": "runtime",
    "lib/libcudart.so.13": "shared runtime",
    "include/cuda_runtime.h": "header",
    "include/cccl/cuda/std/cstdint": "cccl",
}


def _parts(release: str = "13.0.88") -> dict[str, str]:
    return PARTS | {"bin/nvcc": NVCC.format(short=release.rpartition(".")[0], release=release)}


def _toolkit(root: Path, release: str = "13.0.88") -> Path:
    """Install a toolkit of small scripts and files."""
    for name, text in _parts(release).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.parent.name == "bin":
            path.chmod(0o755)
    (root / "lib64").symlink_to("lib")
    return root


def _wheel(links: Path, project: str, parts: dict[str, str], folder: str = "cu13") -> PinnedFile:
    """Put a wheel with parts of a toolkit into the folder pip looks in."""
    links.mkdir(exist_ok=True)
    stem = f"{project.replace('-', '_')}-13.0.88"
    path = links / f"{stem}-py3-none-manylinux_2_17_x86_64.whl"
    with zipfile.ZipFile(path, "w") as package:
        for name, text in parts.items():
            info = zipfile.ZipInfo(f"nvidia/{folder}/{name}")
            info.external_attr = (0o100755 if "/bin/" in f"/{name}" else 0o100644) << 16
            package.writestr(info, text)
        for name in ("__init__.py", f"{folder}/__init__.py", f"{folder}/include/__init__.py"):
            package.writestr(f"nvidia/{name}", "")
        package.writestr(f"{stem}.dist-info/METADATA", "Name: x")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PinnedFile(project=project, filename=path.name, sha256=digest)


def _wheels(tmp_path: Path, release: str = "13.0.88") -> tuple[PinnedFile, ...]:
    parts = _parts(release)
    headers = {name: text for name, text in parts.items() if name.startswith("include/")}
    rest = {name: text for name, text in parts.items() if name not in headers}
    links = tmp_path / "links"
    return (_wheel(links, "nvidia-cuda-nvcc", rest), _wheel(links, "nvidia-cuda-cccl", headers))


def _fact(*wheels: PinnedFile, version: ToolkitVersion = CUDA_130) -> ToolkitFact:
    return ToolkitFact(
        version=version,
        release=f"{version}.88",
        driver="580.65.06",
        gcc_max=15,
        origins=(ToolkitOrigin.SYSTEM, ToolkitOrigin.REGISTRY),
        wheels=wheels,
    )


def _workspace(tmp_path: Path, **environ: str) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "links")}
    workspace = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PATH": str(tmp_path / "empty")} | pip | environ,
        reporter=recorder,
    )
    return workspace, recorder


def _environ(kind: str, root: Path, tmp_path: Path) -> dict[str, str]:
    """Point to a toolkit in each way a machine may have it."""
    if kind in ("CUDA_HOME", "CUDA_PATH"):
        return {kind: str(root)}
    if kind == "PATH":
        return {"PATH": f"{root}/bin"}
    folder = tmp_path / "wrapper"
    folder.mkdir()
    (folder / "nvcc").write_text(f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
    (folder / "nvcc").chmod(0o755)
    return {"PATH": str(folder)}


def _system(workspace: Workspace) -> Toolkit:
    return obtain_toolkit(_fact(), ToolkitChoice.SYSTEM, workspace)


@pytest.mark.parametrize("kind", ["CUDA_HOME", "CUDA_PATH", "PATH", "a wrapper script on PATH"])
def test_the_machines_own_toolkit_is_found(kind: str, tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda-13.0")
    workspace, _ = _workspace(tmp_path, **_environ(kind, root, tmp_path))
    found = obtain_toolkit(_fact(), ToolkitChoice.AUTO, workspace)
    assert (found.origin, found.version, found.release, found.root) == (
        ToolkitOrigin.SYSTEM,
        CUDA_130,
        "13.0.88",
        root,
    )
    nvcc = (root / "bin/nvcc").read_bytes()
    assert found.fingerprint["nvcc"] == hashlib.sha256(nvcc).hexdigest()
    assert found.fingerprint["cicc"] == hashlib.sha256(b"compiler").hexdigest()
    assert found == _system(workspace)


def test_cuda_home_is_asked_before_path(tmp_path: Path) -> None:
    chosen = _toolkit(tmp_path / "chosen")
    other = _toolkit(tmp_path / "other", "13.2.86")
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(chosen), PATH=f"{other}/bin")
    found = _system(workspace)
    assert found.root == chosen


def test_the_registrys_toolkit_is_complete_and_has_the_same_key(tmp_path: Path) -> None:
    system = _toolkit(tmp_path / "cuda-13.0")
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(system))
    fact = _fact(*_wheels(tmp_path))
    found = obtain_toolkit(fact, ToolkitChoice.REGISTRY, workspace)
    assert found.origin is ToolkitOrigin.REGISTRY
    assert found.root.is_relative_to(workspace.toolkits)
    assert (found.root / "lib64").readlink() == Path("lib")
    assert (found.root / "lib" / "libcudart.so").resolve().name == "libcudart.so.13"
    assert found.key == obtain_toolkit(fact, ToolkitChoice.SYSTEM, workspace).key


def test_a_second_run_needs_no_network(tmp_path: Path) -> None:
    workspace, recorder = _workspace(tmp_path)
    fact = _fact(*_wheels(tmp_path))
    first = obtain_toolkit(fact, ToolkitChoice.AUTO, workspace)
    shutil.rmtree(tmp_path / "links")
    shutil.rmtree(workspace.files)
    recorder.notes.clear()
    assert obtain_toolkit(fact, ToolkitChoice.AUTO, workspace) == first
    assert recorder.notes == []


@pytest.mark.parametrize("part", ["bin/ptxas", "include/cuda_runtime.h", "nvvm/libdevice/libdevice.10.bc"])
def test_an_unpacked_toolkit_that_changed_is_unpacked_again(part: str, tmp_path: Path) -> None:
    workspace, recorder = _workspace(tmp_path)
    fact = _fact(*_wheels(tmp_path))
    first = obtain_toolkit(fact, ToolkitChoice.AUTO, workspace)
    (first.root / part).write_text("changed")
    assert obtain_toolkit(fact, ToolkitChoice.AUTO, workspace) == first
    assert (first.root / part).read_text() == PARTS[part]
    assert "is not what was unpacked there (changed: " in recorder.warnings[0]


def test_a_half_deleted_toolkit_is_unpacked_again(tmp_path: Path) -> None:
    workspace, recorder = _workspace(tmp_path)
    fact = _fact(*_wheels(tmp_path))
    first = obtain_toolkit(fact, ToolkitChoice.AUTO, workspace)
    shutil.rmtree(first.root / "bin")
    assert obtain_toolkit(fact, ToolkitChoice.AUTO, workspace) == first
    assert len(recorder.warnings) == 1


@pytest.mark.parametrize(
    ("part", "name"), [("bin/nvcc.profile", "nvcc.profile"), ("include/cccl/cuda/std/cstdint", "include")]
)
def test_every_part_is_in_the_key_and_is_read_again_when_touched(part: str, name: str, tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda")
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    before = _system(workspace)
    (root / part).write_text("x" * (root / part).stat().st_size)
    after = _system(workspace)
    assert {key for key, digest in after.fingerprint.items() if digest != before.fingerprint[key]} == {name}
    assert before.key != after.key


def test_a_header_with_another_name_changes_the_key(tmp_path: Path) -> None:
    keys = set()
    for name in ("first", "second"):
        root = _toolkit(tmp_path / name)
        (root / "include" / f"{name}.h").write_text("")
        found = _system(_workspace(tmp_path, CUDA_HOME=str(root))[0])
        keys.add(found.key)
    assert len(keys) == 2


def test_headers_of_a_target_folder_count_once_if_they_are_the_same(tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda")
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    plain = _system(workspace)
    target = root / "targets" / "x86_64-linux"
    target.mkdir(parents=True)
    (target / "include").symlink_to("../../include")
    linked = _system(workspace)
    assert linked == plain
    (target / "include").unlink()
    (target / "include").mkdir()
    (target / "include" / "cuda_runtime.h").write_text("another header")
    separate = _system(workspace)
    assert "include x86_64-linux" in separate.fingerprint


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("bin/ptxas", "lacks bin/ptxas"),
        ("lib/libcudart_static.a", "lacks lib64/libcudart_static.a"),
        ("include/cccl/cuda/std/cstdint", "lacks the CCCL headers"),
    ],
)
def test_an_incomplete_toolkit_is_passed_over_with_the_reason(missing: str, reason: str, tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda")
    (root / missing).unlink()
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(_fact(), ToolkitChoice.SYSTEM, workspace)
    assert caught.value.detail[0].startswith(f"system: {root} {reason}")
    found = obtain_toolkit(_fact(*_wheels(tmp_path)), ToolkitChoice.AUTO, workspace)
    assert found.origin is ToolkitOrigin.REGISTRY


def test_a_toolkit_of_another_version_is_passed_over(tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda", "12.4.131")
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(_fact(), ToolkitChoice.SYSTEM, _workspace(tmp_path, CUDA_HOME=str(root))[0])
    assert caught.value.detail == (f"system: {root} is CUDA 12.4",)
    assert caught.value.hint == "export CUDA_HOME=/path/to/cuda-13.0"


def test_no_nvcc_and_no_registry_name_both_reasons_and_a_remedy(tmp_path: Path) -> None:
    wheels = _wheels(tmp_path)
    shutil.rmtree(tmp_path / "links")
    with pytest.raises(ToolError, match=r"there is no CUDA 13\.0 toolkit to compile with") as caught:
        obtain_toolkit(_fact(*wheels), ToolkitChoice.AUTO, _workspace(tmp_path)[0])
    assert caught.value.detail[0] == "system: CUDA_HOME and CUDA_PATH are not set, and nvcc is not on PATH"
    assert caught.value.detail[1].startswith(f"registry: {wheels[0].filename} cannot be fetched")
    assert caught.value.hint is not None
    assert "pip config list" in caught.value.hint


def test_a_cuda_home_without_nvcc_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(_fact(), ToolkitChoice.AUTO, _workspace(tmp_path, CUDA_HOME="/nowhere")[0])
    assert caught.value.detail == (
        "system: CUDA_HOME is /nowhere, which has no bin/nvcc",
        "registry: matrix.yaml names nothing to fetch for CUDA 13.0",
    )


def test_an_origin_the_matrix_does_not_allow_is_not_used(tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda")
    fact = replace(_fact(*_wheels(tmp_path)), origins=(ToolkitOrigin.REGISTRY,))
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    assert obtain_toolkit(fact, ToolkitChoice.AUTO, workspace).origin is ToolkitOrigin.REGISTRY


def test_a_wheel_that_is_not_the_pinned_one_is_an_error_and_no_reason_to_go_on(tmp_path: Path) -> None:
    wheels = _wheels(tmp_path)
    with (tmp_path / "links" / wheels[1].filename).open("ab") as stream:
        stream.write(b"x")
    workspace, _ = _workspace(tmp_path)
    with pytest.raises(SourceError, match="is not the file that is pinned"):
        obtain_toolkit(_fact(*wheels), ToolkitChoice.AUTO, workspace)
    assert [path.name for path in workspace.toolkits.iterdir() if path.is_dir()] == []


def test_wheels_of_another_release_than_the_matrix_says_are_refused(tmp_path: Path) -> None:
    fact = _fact(*_wheels(tmp_path, "13.0.48"))
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(fact, ToolkitChoice.REGISTRY, _workspace(tmp_path)[0])
    assert caught.value.detail == ("registry: its nvcc is 13.0.48, and matrix.yaml says 13.0.88",)


# CUDA 12: wheels with a folder for each project, what they lack from a Debian package, another ptxas on top.

POOL = "pool/non-free/n/nvcc/nvcc_12.4_amd64.deb"


def _fact_of_cuda_12(tmp_path: Path) -> ToolkitFact:
    parts = _parts("12.4.131")
    from_debian = {name: text for name, text in parts.items() if name in ("bin/nvcc", "bin/cudafe++", "bin/fatbinary")}
    from_debian |= {name: parts[name] for name in ("bin/nvlink", "nvvm/bin/cicc", "lib/libcudart_static.a")}
    from_wheels = {name: text for name, text in parts.items() if name not in from_debian and "profile" not in name}
    headers = {name: text for name, text in from_wheels.items() if name.startswith("include/")}
    rest = {name: text for name, text in from_wheels.items() if name not in headers}
    wheels = (
        _wheel(tmp_path / "links", "nvidia-cuda-nvcc-cu12", rest, folder="cuda_nvcc"),
        _wheel(tmp_path / "links", "nvidia-cuda-runtime-cu12", headers, folder="cuda_runtime"),
    )
    package = deb(tmp_path / "mirror" / POOL, {f"usr/{name}": text for name, text in from_debian.items()})
    return replace(
        _fact(*wheels, version=CUDA_124),
        release="12.4.131",
        debian=(
            DebianPackage(
                pool=POOL,
                sha256=hashlib.sha256(package.read_bytes()).hexdigest(),
                members={f"usr/{name}": name for name in from_debian},
            ),
        ),
    )


def _workspace_with_apt(tmp_path: Path) -> tuple[Workspace, Recorder]:
    programs = apt(tmp_path / "apt", f"copy:{tmp_path}/mirror")
    return _workspace(tmp_path, PATH=path_with(programs))


def test_wheels_and_debian_packages_make_one_toolkit(tmp_path: Path) -> None:
    fact = _fact_of_cuda_12(tmp_path)
    workspace, recorder = _workspace_with_apt(tmp_path)
    found = obtain_toolkit(fact, ToolkitChoice.REGISTRY, workspace)
    assert (found.version, found.release, found.origin) == (CUDA_124, "12.4.131", ToolkitOrigin.REGISTRY)
    assert (found.root / "bin" / "cudafe++").read_text() == "front end"
    assert 'INCLUDES += "-I$(TOP)/include"' in (found.root / "bin" / "nvcc.profile").read_text()
    assert not (found.root / "include" / "__init__.py").exists()
    assert not (found.root / ".packages").exists()
    assert recorder.notes[-1] == "unpacked CUDA 12.4 from 2 wheels, nvcc_12.4_amd64.deb"
    assert list(workspace.files.rglob("*.deb")) == []


def test_another_ptxas_takes_the_place_of_the_toolkits_own_and_nothing_else(tmp_path: Path) -> None:
    plain = _fact_of_cuda_12(tmp_path)
    newer = _wheel(
        tmp_path / "links", "nvidia-cuda-nvcc", {"bin/ptxas": "newer", "include/x.h": ""}, folder="cuda_nvcc"
    )
    fact = replace(
        plain,
        version=ToolkitVersion.parse("12.4+ptxas12.9"),
        origins=(ToolkitOrigin.REGISTRY,),
        ptxas=newer,
    )
    workspace, _ = _workspace_with_apt(tmp_path)
    found = obtain_toolkit(fact, ToolkitChoice.AUTO, workspace)
    assert str(found.version) == "12.4+ptxas12.9"
    shutil.rmtree(tmp_path / "mirror")  # the plain one was put together on the way
    other = obtain_toolkit(plain, ToolkitChoice.REGISTRY, workspace)
    assert {part for part, digest in found.fingerprint.items() if digest != other.fingerprint[part]} == {"ptxas"}
    assert (found.root / "bin" / "ptxas").read_text() == "newer"
    assert (other.root / "bin" / "ptxas").read_text() == PARTS["bin/ptxas"]
    assert found.key != other.key


def test_the_machines_own_toolkit_never_has_another_ptxas(tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda", "12.4.131")
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    fact = replace(
        _fact(version=ToolkitVersion.parse("12.4+ptxas12.9")), release="12.4.131", origins=(ToolkitOrigin.SYSTEM,)
    )
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(fact, ToolkitChoice.SYSTEM, workspace)
    assert caught.value.detail == (f"system: {root} is CUDA 12.4",)
    assert caught.value.hint == "export CUDA_HOME=/path/to/cuda-12.4"


def test_a_toolkit_in_an_image_alone_is_said_to_need_containers(tmp_path: Path) -> None:
    fact = replace(_fact(), origins=(ToolkitOrigin.IMAGE,), image="registry.example/cuda:13.0")
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(fact, ToolkitChoice.AUTO, _workspace(tmp_path)[0])
    assert caught.value.detail[-1] == "image: registry.example/cuda:13.0 is for engines that run containers"


def test_toolkits_at_hand_say_where_each_would_come_from(tmp_path: Path) -> None:
    root = _toolkit(tmp_path / "cuda", "13.2.86")
    wheels = _wheels(tmp_path)
    facts = {
        CUDA_124: _fact(version=CUDA_124),
        CUDA_130: _fact(*wheels),
        CUDA_132: _fact(*wheels, version=CUDA_132),
    }
    matrix = Matrix(
        toolkits=facts, torches={}, pythons=(), stable_floor=TorchVersion(2, 9), platforms={}, exclusions=(), ci=()
    )
    workspace, _ = _workspace(tmp_path, CUDA_HOME=str(root))
    assert toolkits_at_hand(matrix, ToolkitChoice.AUTO, workspace) == {
        CUDA_130: "registry",
        CUDA_132: f"system {root}",
    }
    assert not workspace.files.exists()
    obtain_toolkit(facts[CUDA_130], ToolkitChoice.AUTO, workspace)
    assert toolkits_at_hand(matrix, ToolkitChoice.AUTO, workspace)[CUDA_130] == "cached"
    assert list(toolkits_at_hand(matrix, ToolkitChoice.SYSTEM, workspace)) == [CUDA_132]
    by_registry = toolkits_at_hand(matrix, ToolkitChoice.REGISTRY, workspace)
    assert not any(where.startswith("system") for where in by_registry.values())
