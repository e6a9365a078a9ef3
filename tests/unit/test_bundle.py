"""Constraint files and bundles: which wheel a cell gets, the texts with their hashes, and the tar."""

import hashlib
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from tests.unit.index_zoo import cells, entry
from tests.unit.publish_zoo import BOUND, STABLE, shelve

from hopperforge.cli import run_command
from hopperforge.index.bundle import BundleCell, Locked, install_script, pylock, readme, requirements, sums
from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.constraints import constraint_files, constraint_lines, profiles_for, wheels_for
from hopperforge.index.whole import index_files
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion

CU124 = entry("3.0.0+cu124", cells=cells("2.9", "2.11", runtime="12.8"))
CU130 = entry("3.0.0+cu130")
TRIMMED = entry("3.0.0+cu124.hdim128.bf16", default=False, profile="hdim128-bf16", toolkit="12.4")
TORCH26 = entry("3.0.0+cu124torch2.6", cells=cells("2.6", runtime="12.4"), torch="torch==2.6.*")
ALL = (CU124, CU130, TRIMMED, TORCH26)
HASH = "ab" * 32
FILE = "fa3_fwd-3.0.0+cu124-cp39-abi3-linux_x86_64.whl"
OURS = Locked(project="fa3-fwd", version="3.0.0+cu124", path=f"pool/fa3-fwd/{FILE}", sha256=HASH, size=5)
TORCH = Locked(project="torch", version="2.9.1", path="wheels/torch-2.9.1-py3-none-any.whl", sha256="cd" * 32, size=9)
CELL = BundleCell(
    project="fa3-fwd",
    cuda=CudaVersion.parse("12.8"),
    torch=TorchVersion.parse("2.9"),
    profile="fa3-fwd",
    python=None,
)


@pytest.mark.parametrize(
    ("cuda", "torch", "profile", "wheels"),
    [
        ("12.8", "2.9", None, [CU124]),
        ("12.6", "2.9", None, [CU124]),
        ("13.0", "2.9", None, [CU130]),
        ("12.8", "2.6", None, [TORCH26]),
        ("12.1", "2.6", None, []),
        ("13.0", "2.6", None, []),
        ("12.8", "2.10", None, []),
        ("12.8", "2.9", "hdim128-bf16", [TRIMMED]),
        ("12.8", "2.9", "fa3-fwd", [CU124]),
        ("12.8", "2.9", "full", []),
    ],
)
def test_a_cell_gets_the_highest_version_that_serves_it(
    cuda: str, torch: str, profile: str | None, wheels: list[Entry]
) -> None:
    assert wheels_for(ALL, CudaVersion.parse(cuda), TorchVersion.parse(torch), profile) == wheels


def test_yanked_wheels_are_given_to_no_cell() -> None:
    yanked = entry("3.0.1+cu124", yanked="slow")
    cell = CudaVersion.parse("12.8"), TorchVersion.parse("2.9")
    assert wheels_for([CU124, yanked], *cell, None) == [CU124]
    left = constraint_files(Catalog.of([yanked]))
    assert (
        b"3.0.1+cu124" in constraint_files(Catalog.of([replace(yanked, yanked=None)]))["cu124/torch2.9/constraints.txt"]
    )
    assert b"3.0.1" not in left["cu124/torch2.9/constraints.txt"]


def test_the_profiles_of_a_cell_are_named() -> None:
    assert profiles_for(ALL, CudaVersion.parse("12.8"), TorchVersion.parse("2.9")) == ("fa3-fwd", "hdim128-bf16")
    assert profiles_for(ALL, CudaVersion.parse("13.0"), TorchVersion.parse("2.6")) == ()


def test_files_of_one_version_share_a_line() -> None:
    lines = constraint_lines([("torch", "2.9", "22"), ("fa3-fwd", "3+cu124", "11"), ("torch", "2.9", "00")])
    assert lines == (
        "fa3-fwd==3+cu124 \\\n    --hash=sha256:11\ntorch==2.9 \\\n    --hash=sha256:00 \\\n    --hash=sha256:22\n"
    )


def test_each_project_of_a_page_has_its_own_highest_version() -> None:
    other = replace(entry("1.2.0+cu124"), project="fa3-jax", file="fa3_jax-1.2.0+cu124-py3-none-any.whl")
    files = constraint_files(Catalog.of([entry("3.0.0+cu124"), entry("2.9.0+cu124"), other]))
    text = files["cu124/torch2.9/constraints.txt"].decode()
    assert [line.split()[0] for line in text.splitlines() if "==" in line] == [
        "fa3-fwd==3.0.0+cu124",
        "fa3-jax==1.2.0+cu124",
    ]


def test_every_cell_of_an_index_has_its_constraints() -> None:
    files = constraint_files(Catalog.of(ALL))
    assert sorted(files) == [
        "cu124/torch2.11/constraints.txt",
        "cu124/torch2.11/hdim128-bf16/constraints.txt",
        "cu124/torch2.6/constraints.txt",
        "cu124/torch2.9/constraints.txt",
        "cu124/torch2.9/hdim128-bf16/constraints.txt",
        "cu128/torch2.11/constraints.txt",
        "cu128/torch2.11/hdim128-bf16/constraints.txt",
        "cu128/torch2.6/constraints.txt",
        "cu128/torch2.9/constraints.txt",
        "cu128/torch2.9/hdim128-bf16/constraints.txt",
        "cu130/torch2.11/constraints.txt",
        "cu130/torch2.11/hdim128-bf16/constraints.txt",
        "cu130/torch2.9/constraints.txt",
        "cu130/torch2.9/hdim128-bf16/constraints.txt",
    ]
    assert files["cu130/torch2.9/constraints.txt"].decode().splitlines()[1:] == [
        "fa3-fwd==3.0.0+cu130 \\",
        f"    --hash=sha256:{CU130.sha256}",
    ]
    assert CU124.sha256 in files["cu128/torch2.9/constraints.txt"].decode()
    assert files.items() <= index_files(Catalog.of(ALL)).items()


def test_the_lock_is_what_the_library_reads_back() -> None:
    data = tomllib.loads(pylock([TORCH, OURS], "==3.12.*").decode())
    lock = Pylock.from_dict(data)
    assert str(lock.requires_python) == "==3.12.*"
    found = [(str(one.name), str(one.version), one.wheels) for one in lock.packages]
    assert [(name, version) for name, version, _ in found] == [("fa3-fwd", "3.0.0+cu124"), ("torch", "2.9.1")]
    (wheel,) = found[0][2] or ()
    assert (wheel.path, wheel.size, wheel.hashes) == (OURS.path, 5, {"sha256": HASH})


def test_texts_name_every_wheel_and_every_folder() -> None:
    assert requirements([TORCH, OURS]).decode() == constraint_lines(
        [(OURS.project, OURS.version, HASH), (TORCH.project, TORCH.version, TORCH.sha256)]
    )
    assert b' --find-links "$here/pool/fa3-fwd" --find-links "$here/wheels" "$@"' in install_script([TORCH, OURS])
    text = readme(CELL, [OURS, TORCH], with_torch=True).decode()
    assert "Torch and all it requires are here too" in text
    assert "Torch 2.9 must be there already" in readme(CELL, [OURS], with_torch=False).decode()
    assert OURS.path in text
    assert sums({"b": "22", "a": "11"}) == b"11  a\n22  b\n"


def test_a_bundle_is_named_by_its_cell() -> None:
    assert CELL.name == "fa3-fwd-cu128-torch2.9"
    assert str(CELL) == "fa3-fwd, profile fa3-fwd, for torch 2.9 of CUDA 12.8 and any Python from 3.9 on"
    bound = BundleCell(
        project="fa3-fwd", cuda=CELL.cuda, torch=CELL.torch, profile="full", python=PythonVersion.parse("3.12")
    )
    assert bound.name == "fa3-fwd-cu128-torch2.9-py3.12"


@pytest.fixture
def house(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheelhouse of a stable build and one for torch 2.6, and the command line in front of it."""
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOPPERFORGE_WHEELHOUSE", str(tmp_path / "wheelhouse"))
    monkeypatch.delenv("HOPPERFORGE_STORE", raising=False)
    shelve(tmp_path / "wheelhouse", STABLE)
    shelve(tmp_path / "wheelhouse", BOUND)
    return tmp_path / "wheelhouse"


def bundled(tar: Path, *words: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    assert run_command(["bundle", *words, f"to={tar}"]) == 0
    found = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            found[member.name] = (member, content.read())
    return found


def test_a_bundle_holds_its_cell_and_nothing_of_this_machine(house: Path, tmp_path: Path) -> None:
    files = bundled(tmp_path / "a.tar", "cuda=13.0", "torch=2.11")
    root = "fa3-fwd-cu130-torch2.11/"
    names = {name.removeprefix(root) for name in files}
    assert {"README.txt", "install.sh", "requirements.txt", "pylock.toml", "doctor.py", "packages.json"} <= names
    wheels = {name for name in names if name.endswith(".whl")}
    assert wheels == {f"pool/fa3-fwd/{path.name}" for path in house.glob(f"*{STABLE}*.whl")}
    assert "cu130/torch2.11/simple/fa3-fwd/index.html" in names
    assert not [name for name in names if Path(name).name.startswith(".")]
    assert {(member.uid, member.uname, member.mtime) for member, _ in files.values()} == {(0, "", 1_700_000_000)}
    runnable = {name.removeprefix(root) for name, (member, _) in files.items() if member.mode == 0o755}
    assert runnable == {"install.sh", "doctor.py"}
    assert not [name for name, (_, data) in files.items() if str(tmp_path).encode() in data]


def test_the_sums_are_of_every_other_file(house: Path, tmp_path: Path) -> None:
    assert house.is_dir()
    whole = bundled(tmp_path / "a.tar", "cuda=13.0", "torch=2.11")
    files = {name.partition("/")[2]: data for name, (_, data) in whole.items()}
    lines = files.pop("SHA256SUMS").decode().splitlines()
    told = {path: sha256 for sha256, path in (line.split("  ") for line in lines)}
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_equal_packages_give_equal_bytes(house: Path, tmp_path: Path) -> None:
    assert house.is_dir()
    first, second = tmp_path / "a.tar", tmp_path / "elsewhere" / "b.tar"
    bundled(first, "cuda=12.8", "torch=2.6")
    bundled(second, "cuda=12.8", "torch=2.6")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "cuda= and torch= are needed"),
        (["cuda=12.8"], 2, "cuda= and torch= are needed"),
        (["cuda=12", "torch=2.9"], 2, "cuda=: '12' is not a CUDA version"),
        (["cuda=12.8", "torch=2.9", "recipe=fa4"], 2, "recipe=fa4: there is fa3-cpp"),
        (["cuda=12.8", "torch=2.9", "recipe=fa3-cpp"], 2, "recipe=fa3-cpp: its package goes with any torch or none"),
        (["cuda=12.8", "torch=2.9", "with=jax", "python=3.12"], 2, "with=jax: there is with=torch"),
        (["cuda=12.8", "torch=2.9", "with=torch"], 2, "python= and with=torch go together"),
        (["cuda=12.8", "torch=2.9", "python=3.12"], 2, "python= and with=torch go together"),
        (["cuda=12.8", "torch=2.9", "wheel=x"], 2, "unknown word wheel=x"),
        (["cuda=12.8", "torch=2.11"], 3, "has nothing of the default profile for torch 2.11 of CUDA 12.8"),
        (["cuda=13.0", "torch=2.11", "profile=full"], 3, "hint: profile=fa3-fwd"),
        (["cuda=13.0", "torch=2.9"], 3, "hint: nox -s build -- recipe=fa3-fwd torch=2.9"),
    ],
)
def test_what_cannot_be_bundled_is_said(
    house: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
) -> None:
    assert house.is_dir()
    assert run_command(["bundle", *words]) == status
    assert says in capsys.readouterr().err


def test_what_is_not_proven_is_bundled_on_demand_only(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(house, "3.0.1+cu130", proven=False)
    assert run_command(["bundle", "cuda=13.0", "torch=2.11", f"to={tmp_path}/a.tar"]) == 9
    said = capsys.readouterr().err
    assert "nothing was bundled, for not every package is proven" in said
    assert "no smoke tests on a GPU" in said
    assert not (tmp_path / "a.tar").exists()
    files = bundled(tmp_path / "a.tar", "cuda=13.0", "torch=2.11", "--allow-unproven")
    (catalog,) = [data for name, (_, data) in files.items() if name.endswith("/packages.json")]
    assert Catalog.from_json(catalog, "bundle").packages[0].unproven


def test_a_damaged_wheel_is_left_out_with_a_warning(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (wheel,) = house.glob(f"*{STABLE}*.whl")
    wheel.write_bytes(b"cut")
    assert run_command(["bundle", "cuda=13.0", "torch=2.11", f"to={tmp_path}/a.tar"]) == 3
    assert "is not the file its record names" in capsys.readouterr().err
