"""Licences: collected from pinned files only, and refused where they are not the pinned text."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.toolkit import PinnedFile, Toolkit, ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import Licence, PatchedSource, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.run.files import write_atomic
from hopperforge.run.workspace import Workspace
from hopperforge.stages.licences import collect_licences, licences_at_hand

UPSTREAM, CUTLASS, NVIDIA = b"Upstream's.\n", b"CUTLASS's.\n", b"NVIDIA's.\n"
VERSION = ToolkitVersion.parse("13.0")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sdist(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _wheel(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def _cached(workspace: Workspace, project: str, filename: str, data: bytes) -> PinnedFile:
    file = PinnedFile(project=project, filename=filename, sha256=_digest(data))
    write_atomic(workspace.files / file.sha256 / filename, data)
    return file


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = replace(zoo.workspace(tmp_path), environ={"PIP_NO_INDEX": "1", "PATH": "/usr/bin"})
    write_atomic(workspace.project / "LICENSE", b"Ours.\n")
    return workspace


def _source(workspace: Workspace, **hashes: str) -> PatchedSource:
    data = _sdist("flash_attn-2.8.3/LICENSE", UPSTREAM)
    archive = _cached(workspace, "flash_attn", "flash_attn-2.8.3.tar.gz", data)
    licences = (
        Licence(path="LICENSE", sha256=hashes.get("upstream", _digest(UPSTREAM)), archive=archive),
        Licence(path="csrc/cutlass/LICENSE.txt", sha256=hashes.get("cutlass", _digest(CUTLASS)), archive=None),
    )
    pin = UpstreamPin(name="p", commit="c" * 40, epoch=1, trees={}, origins=(), licences=licences)
    root = workspace.cache / "tree"
    write_atomic(root / "csrc/cutlass/LICENSE.txt", CUTLASS)
    return PatchedSource(pin=pin, root=root, origin="here", patches={}, kernel_tree="", front_tree="")


def _fact(workspace: Workspace, member: str = "runtime-13.0.dist-info/licenses/License.txt") -> ToolkitFact:
    wheel = _cached(workspace, "nvidia-cuda-runtime", "runtime-13.0-py3-none-x.whl", _wheel(member, NVIDIA))
    other = PinnedFile(project="nvidia-cuda-nvcc", filename="n.whl", sha256="0" * 64)
    return ToolkitFact(version=VERSION, release="13.0.88", driver="580", gcc_max=15, origins=(), wheels=(other, wheel))


def _toolkit(root: Path) -> Toolkit:
    return Toolkit(version=VERSION, release="13.0.88", origin=ToolkitOrigin.SYSTEM, root=root, fingerprint={})


def test_every_licence_is_collected_under_a_name_that_setuptools_takes(workspace: Workspace) -> None:
    found = collect_licences(_source(workspace), _toolkit(Path("/none")), _fact(workspace), workspace)
    assert found == {
        "LICENSE": UPSTREAM,
        "LICENSE.cuda.txt": NVIDIA,
        "LICENSE.cutlass.txt": CUTLASS,
        "LICENSE.hopperforge.txt": b"Ours.\n",
    }
    assert list(found) == sorted(found)


@pytest.mark.parametrize("which", ["upstream", "cutlass"])
def test_another_text_than_the_pinned_one_is_refused(workspace: Workspace, which: str) -> None:
    source = _source(workspace, **{which: "1" * 64})
    with pytest.raises(SourceError, match="is not the licence that is pinned") as caught:
        collect_licences(source, _toolkit(Path("/none")), _fact(workspace), workspace)
    assert caught.value.detail[0] == f"pinned: sha256 {'1' * 64}"


def test_a_source_without_the_file_is_refused(workspace: Workspace) -> None:
    source = _source(workspace)
    (source.root / "csrc/cutlass/LICENSE.txt").unlink()
    with pytest.raises(SourceError, match=r"csrc/cutlass/LICENSE\.txt is not the licence"):
        collect_licences(source, _toolkit(Path("/none")), _fact(workspace), workspace)


def test_a_runtime_without_its_licence_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SourceError, match="holds no licence"):
        collect_licences(_source(workspace), _toolkit(Path("/none")), _fact(workspace, "a/License.txt"), workspace)


def test_the_installers_own_copy_serves_where_nothing_can_be_fetched(workspace: Workspace, tmp_path: Path) -> None:
    fact = replace(_fact(workspace), wheels=())
    with pytest.raises(ToolError, match=r"NVIDIA's licence of CUDA 13\.0 is not at hand"):
        collect_licences(_source(workspace), _toolkit(tmp_path), fact, workspace)
    (tmp_path / "EULA.txt").write_bytes(b"As installed.\n")
    found = collect_licences(_source(workspace), _toolkit(tmp_path), fact, workspace)
    assert found["LICENSE.cuda.txt"] == b"As installed.\n"


def test_what_would_have_to_be_fetched_is_known(workspace: Workspace) -> None:
    source, fact = _source(workspace), _fact(workspace)
    assert licences_at_hand(source.pin, fact, workspace)
    archive = source.pin.licences[0].archive
    assert archive is not None
    (workspace.files / archive.sha256 / archive.filename).unlink()
    assert not licences_at_hand(source.pin, fact, workspace)
