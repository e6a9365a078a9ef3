"""The verbs bench, memory and verify-install from the checkout: words, the interpreter, the exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.cli import run_command
from hopperforge.node.gpu.single_program import node_program


@pytest.fixture
def python(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of a node's Python: it prints its words, and exits as the file `status` says."""
    monkeypatch.chdir(project_root)
    monkeypatch.setenv("HOPPERFORGE_CACHE", str(tmp_path / "cache"))
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nshift\necho "$@"\nexit $(cat {tmp_path}/status)\n')
    program.chmod(0o755)
    (tmp_path / "status").write_text("0")
    return program


def test_words_go_to_the_interpreter_with_whole_paths(
    python: Path, project_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", "seqlen=1024", f"interpreter={python}", "out=there", "--json"]) == 0
    assert capfd.readouterr().out == f"bench seqlen=1024 out={project_root}/there --json\n"
    assert run_command(["verify-install", "w/x.whl", "key=a.pem,b.pem", f"interpreter={python}"]) == 0
    said = capfd.readouterr().out
    assert said == f"verify-install {project_root}/w/x.whl key={project_root}/a.pem,{project_root}/b.pem\n"


@pytest.mark.parametrize("code", [2, 10, 11, 12, 20, 21])
def test_exit_codes_come_through(python: Path, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    python.with_name("status").write_text(str(code))
    assert run_command(["memory", f"interpreter={python}"]) == code
    assert capfd.readouterr().err.startswith("error: ")


def test_an_interpreter_that_fails_otherwise_is_no_tool(python: Path, capfd: pytest.CaptureFixture[str]) -> None:
    python.with_name("status").write_text("3")
    assert run_command(["verify-install", f"interpreter={python}"]) == 5
    assert "cannot run verify-install" in capfd.readouterr().err


@pytest.mark.usefixtures("python")
def test_a_wheel_or_key_that_is_not_there_is_a_wrong_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The words are read here, the files in the Python of the node."""
    for words in (["verify-install", f"{tmp_path}/none.whl"], ["verify-install", f"key={tmp_path}/none.pem"]):
        assert run_command([*words, f"interpreter={sys.executable}"]) == 2
        out, err = capfd.readouterr()
        assert "cannot be read: No such file or directory" in out
        assert err == "error: that Python refused the words, or a file that they name; see above\n"


def test_wrong_words_start_nothing(python: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", f"interpreter={python}", "seqlen=x", "dtype=bf8"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: 2 words are wrong\n  seqlen=x: ")
    assert "hint: hopperforge bench seqlen=1024" in err
    assert run_command(["bench", "program="]) == 2
    assert run_command(["bench", f"interpreter={python}", f"interpreter={python}"]) == 2


def test_the_program_is_written_for_a_node_and_runs_there(
    python: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "node.pyz"
    assert run_command(["bench", f"program={place}", f"interpreter={python}", "seqlen=4096"]) == 0
    assert capfd.readouterr().out == f"written: {place}; on the node: python3 node.pyz bench seqlen=4096\n"
    done = subprocess.run([sys.executable, place, "bench", "seqlen=x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


TORCH = """
from types import SimpleNamespace
__version__ = "2.11.0"
version = SimpleNamespace(cuda={cuda!r})
cuda = SimpleNamespace(is_available=lambda: {gpu}, get_device_name=lambda: "NVIDIA H200")
"""


@pytest.mark.parametrize("verb", ["bench", "memory"])
@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("raise ImportError('no libcudart')", "no libcudart"),
        (TORCH.format(cuda=None, gpu=False), "torch 2.11.0 is built without CUDA"),
        (TORCH.format(cuda="13.0", gpu=False), "torch 2.11.0 finds no GPU"),
        (
            TORCH.format(cuda="13.0", gpu=True),
            "no implementation that was asked for is here: flash_attn_2: not installed: there is no module flash_attn",
        ),
    ],
    ids=["no torch", "torch for CPUs", "no GPU", "no backend"],
)
def test_where_nothing_can_be_measured_the_answer_is_no_success(
    verb: str, torch: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(torch)
    program = tmp_path / "node.pyz"
    program.write_bytes(node_program())
    argv = [sys.executable, str(program), verb, "backends=flash_attn_2", f"out={tmp_path}/out"]
    bare = {"PATH": "/nowhere", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(argv, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 10, done.stderr
    assert f"{said}; nothing was measured\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
