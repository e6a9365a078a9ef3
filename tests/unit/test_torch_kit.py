"""The torch kit: what is taken of the wheel, what is missed, and that a changed kit is not trusted."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from hopperforge.errors import InputError, SourceError, ToolError
from hopperforge.model.matrix import TorchFact
from hopperforge.model.toolkit import PinnedFile
from hopperforge.model.versions import CudaVersion, TorchVersion
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.torch_kit import LIBRARIES, obtain_torch_kit

NAME = "torch-2.9.1-cp399-cp399-manylinux_2_28_x86_64.whl"
TAKEN = {
    "torch/version.py": "__version__ = '2.9.1'",
    "torch/include/torch/csrc/stable/tensor.h": "// tensor",
    **{f"torch/lib/{name}": name for name in LIBRARIES},
}
LEFT = {
    "torch/__init__.py": "import everything",
    "torch/lib/libtorch_python.so": "python",
    "torch/lib/libtorch_cuda_linalg.so": "linalg",
    "torch-2.9.1.dist-info/METADATA": "Name: torch",
}


def _fact(tmp_path: Path, members: dict[str, str]) -> TorchFact:
    """Put a torch wheel into the folder pip looks in, and pin it."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / NAME, "w") as package:
        for name, text in members.items():
            package.writestr(name, text)
    digest = hashlib.sha256((links / NAME).read_bytes()).hexdigest()
    return _fact_of(PinnedFile(project="torch", filename=NAME, sha256=digest))


def _fact_of(wheel: PinnedFile | None) -> TorchFact:
    return TorchFact(
        version=TorchVersion(2, 9),
        release="2.9.1",
        index_cuda=CudaVersion(12, 8),
        cuda=(CudaVersion(12, 8),),
        pythons=(),
        wheel=wheel,
        cxx11_abi=True,
        cxx_standard=17,
    )


def _workspace(tmp_path: Path) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    workspace = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "links")},
        reporter=recorder,
    )
    return workspace, recorder


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_headers_and_link_libraries_are_taken_and_the_wheel_is_not_kept(tmp_path: Path) -> None:
    fact = _fact(tmp_path, TAKEN | LEFT)
    workspace, recorder = _workspace(tmp_path)
    kit = obtain_torch_kit(fact, workspace)
    assert fact.wheel is not None
    assert (kit.version, kit.release, kit.wheel_sha256) == (TorchVersion(2, 9), "2.9.1", fact.wheel.sha256)
    assert kit.root == workspace.torches / fact.wheel.sha256
    assert _files(kit.root) == TAKEN
    assert list(workspace.files.rglob(NAME)) == []
    assert recorder.notes[-1] == f"unpacked {NAME} and removed it from the cache (0 MB)"


def test_a_second_run_needs_no_network(tmp_path: Path) -> None:
    fact = _fact(tmp_path, TAKEN)
    workspace, recorder = _workspace(tmp_path)
    first = obtain_torch_kit(fact, workspace)
    shutil.rmtree(tmp_path / "links")
    recorder.notes.clear()
    assert obtain_torch_kit(fact, workspace) == first
    assert recorder.notes == []


@pytest.mark.parametrize("part", TAKEN)
def test_a_kit_that_changed_is_unpacked_again(part: str, tmp_path: Path) -> None:
    fact = _fact(tmp_path, TAKEN)
    workspace, recorder = _workspace(tmp_path)
    root = obtain_torch_kit(fact, workspace).root
    (root / part).write_text("x" * len(TAKEN[part]))
    assert _files(obtain_torch_kit(fact, workspace).root) == TAKEN
    assert "is not what was unpacked there (changed: torch/" in recorder.warnings[0]


def test_a_kit_with_a_part_missing_is_unpacked_again(tmp_path: Path) -> None:
    fact = _fact(tmp_path, TAKEN)
    workspace, recorder = _workspace(tmp_path)
    root = obtain_torch_kit(fact, workspace).root
    (root / "torch/lib/libc10.so").unlink()
    assert _files(obtain_torch_kit(fact, workspace).root) == TAKEN
    assert "(something is missing)" in recorder.warnings[0]


@pytest.mark.parametrize(
    "lacking", ["torch/lib/libtorch_cuda.so", "torch/version.py", "torch/include/torch/csrc/stable/tensor.h"]
)
def test_a_wheel_that_lacks_a_part_is_refused(lacking: str, tmp_path: Path) -> None:
    members = {name: text for name, text in TAKEN.items() if name != lacking}
    workspace, _ = _workspace(tmp_path)
    part = "torch/include" if "include" in lacking else lacking
    with pytest.raises(SourceError, match=f"lacks {part}: a front cannot be bound against it"):
        obtain_torch_kit(_fact(tmp_path, members), workspace)
    assert [path.name for path in workspace.torches.iterdir() if path.is_dir()] == []


def test_an_index_without_the_wheel_is_a_tool_error(tmp_path: Path) -> None:
    wheel = PinnedFile(project="torch", filename=NAME, sha256="0" * 64)
    with pytest.raises(ToolError, match="cannot be fetched from the package index"):
        obtain_torch_kit(_fact_of(wheel), _workspace(tmp_path)[0])


def test_a_torch_without_a_pinned_wheel_is_a_matter_of_the_matrix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"matrix.yaml pins no wheel for torch 2\.9"):
        obtain_torch_kit(_fact_of(None), _workspace(tmp_path)[0])
