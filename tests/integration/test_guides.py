"""Types the commands of the guides: every block of docs/how-to that begins with "```sh" and names no lack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.test_guides import GUIDES
from tests.integration.command import PROJECT, MakeHome
from tests.integration.snippets import snippets

pytestmark = pytest.mark.integration

TYPED = [name for name in GUIDES if snippets(name, "sh")]
# what a session of the noxfile does, without making an environment of its own for it
NOX = f"""#!/bin/sh
[ "$1" = -s ] || exit 64
verb=$2; shift 2
[ "$1" = -- ] && shift
exec {sys.executable} -m hopperforge "$verb" "$@"
"""


@pytest.fixture(scope="module")
def home(make_home: MakeHome) -> Path:
    folder = make_home("guides")
    (folder / "bin").mkdir()
    (folder / "bin" / "nox").write_text(NOX)
    (folder / "bin" / "nox").chmod(0o755)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TYPED)
def test_the_commands_of_a_guide_work(name: str, home: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(home),
        "HOPPERFORGE_CACHE": str(home / "cache"),
        "HOPPERFORGE_WHEELHOUSE": str(home / "wheelhouse"),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
    }
    script = "".join(snippets(name, "sh"))
    done = subprocess.run(
        ["bash", "-euxc", script], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_file_that_a_guide_writes_says_on_a_bare_machine_what_is_missing(home: Path) -> None:
    """The page of verify-install without torch and GPU, and a bench, by a Python that has nothing."""
    program = home / "node.pyz"
    if not program.is_file():
        subprocess.run([home / "bin" / "nox", "-s", "bench", "--", f"program={program}"], cwd=PROJECT, check=True)
    bare = {"PATH": "/nowhere", "HOME": str(home)}

    def on_node(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-I", "-S", program, *words],
            env=bare,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    status, page, err = on_node("verify-install", "fa3-fwd")
    assert (status, err) == (20, "")
    for line in ("GPU        not checked   this machine shows no GPU", "wheel      FAILED", "numbers    not checked"):
        assert line in page
    assert page.endswith("(exit code 20)\n")
    status, out, err = on_node("bench", "seqlen=1024")
    assert (status, out) == (10, "")
    assert "No module named 'torch'; nothing was measured\nhint: " in err
    status, _, err = on_node("bench", "seqlen=1k")
    assert (status, err.splitlines()[0]) == (2, 'error: seqlen=1k: "1k" is no whole number from 1 to 16777216')
    assert on_node()[0] == on_node("smoke")[0] == 2
