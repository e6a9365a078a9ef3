"""The doctor as a node runs it: from a pipe, in a bare environment, before fake and broken drivers and torches."""

import base64
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.command import hopperforge
from tests.integration.fake_node import H100, smi, torch
from tests.unit.node_zoo import OURS, TORCH, distribution, newer, per_torch, stable

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.node.single_file import doctor_source

pytestmark = pytest.mark.integration

LIBCUDA = """
#include <string.h>
extern "C" {
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuInit(unsigned) { %s }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDeviceGet(int* device, int) { *device = 0; return 0; }
int cuDeviceGetName(char* name, int, int) { strcpy(name, "NVIDIA H200"); return 0; }
int cuDeviceGetAttribute(int* value, int which, int) { *value = which == 75 ? 9 : 0; return 0; }
}
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return publish(tmp_path / "index", stable(), newer(), per_torch())


def publish(folder: Path, *entries: Entry) -> Path:
    folder.mkdir()
    (folder / "packages.json").write_bytes(Catalog.of(entries).to_json())
    return folder


def doctor(
    home: Path, *words: str, python: str = sys.executable, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Pipe the doctor into a Python, as the command of the documents does; gives exit code and output."""
    (home / "site").mkdir(exist_ok=True)
    environment = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(home / "site"), "HOME": str(home)}
    done = subprocess.run(
        [python, "-W", "error", "-S", "-", *words],
        input=doctor_source(),
        capture_output=True,
        env={**environment, **(env or {})},
        cwd=home,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, done.stdout.decode()


def answer(home: Path, index: Path | str, *words: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    status, text = doctor(home, "--index", str(index), "--json", *words, env=env)
    report: dict[str, Any] = json.loads(text)
    assert report["doctor"] == 1
    assert {"installed": 0, "fits": 20, "wrong": 21, "nothing fits": 22, "index unreadable": 23}[
        report["status"]
    ] == status
    return report


def problems(report: Mapping[str, Any]) -> list[str]:
    return [finding["what"] for finding in report["findings"] if finding["level"] == "problem"]


def test_a_bare_machine_is_told_what_it_lacks(tmp_path: Path, index: Path) -> None:
    status, text = doctor(tmp_path, "--index", str(index))
    assert status == 21
    assert "problem: there is no NVIDIA driver" in text
    assert "problem: torch is not installed" in text
    assert f"pip install --no-deps 'fa3-fwd @ {index.as_uri()}/pool/fa3-fwd/" in text


def test_a_fitting_node_goes_from_fits_to_installed_to_wrong(tmp_path: Path, index: Path) -> None:
    smi(tmp_path, H100)
    torch(tmp_path)
    report = answer(tmp_path, index)
    assert (report["status"], report["chosen"]) == ("fits", per_torch().file)
    assert report["node"]["torch"] == {"version": "2.6.0+cu124", "cuda": [12, 4], "cxx11_abi": False, "trouble": None}
    distribution(tmp_path / "site", "fa3_fwd", "3.0.0+cu124torch2.6", OURS)
    assert answer(tmp_path, index)["status"] == "installed"
    status, text = doctor(tmp_path, "--index", str(index))
    assert status == 0
    assert "install it with" not in text
    (tmp_path / "site" / "fa3_fwd_interface.py").write_text("raise OSError('no libtorch_cuda.so')\n")
    report = answer(tmp_path, index)
    assert report["status"] == "wrong"
    changed, broken = problems(report)
    assert "is not the file of its RECORD" in changed
    assert "it cannot be imported: OSError: no libtorch_cuda.so" in broken


def test_a_wheel_of_cuda_13_under_a_driver_of_cuda_12_is_found(tmp_path: Path, index: Path) -> None:
    smi(tmp_path, H100.replace("580.65.06", "550.54.15"), cuda="12.4")
    torch(tmp_path, version=TORCH.replace(b"2.6.0+cu124", b"2.9.1+cu126").replace(b"12.4", b"12.6"))
    distribution(tmp_path / "site", "fa3_fwd", "3.0.0+cu130", OURS)
    report = answer(tmp_path, index)
    assert (report["status"], report["chosen"]) == ("wrong", stable().file)
    assert any("holds the CUDA 13.0 runtime" in what for what in problems(report))
    assert "/cu124/simple/" in report["commands"]["pip_by_page"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "raise ImportError('libcudart.so.12: cannot open shared object file')",
            "ImportError: libcudart.so.12: cannot",
        ),
        ("import os; os.abort()", "the process died with status -6"),
        ("print('noise'); import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_torch_that_does_not_import_is_a_finding(tmp_path: Path, index: Path, body: str, says: str) -> None:
    smi(tmp_path, H100)
    torch(tmp_path, body)
    report = answer(tmp_path, index)
    assert report["chosen"] == per_torch().file  # its files say what it is all the same
    assert any(says in what for what in problems(report))
    assert answer(tmp_path, index, "--no-import")["status"] == "fits"


def test_a_driver_too_old_for_the_question_is_asked_for_less(tmp_path: Path, index: Path) -> None:
    smi(tmp_path, H100, cuda="11.4", full="echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2")
    torch(tmp_path)
    report = answer(tmp_path, index)
    assert report["node"]["gpus"] == [{"name": "NVIDIA H100 80GB HBM3", "capability": None, "mig": False}]
    assert report["node"]["driver"]["cuda"] == [11, 4]
    assert report["status"] == "nothing fits"


def test_a_driver_that_does_not_answer_is_a_finding(tmp_path: Path, index: Path) -> None:
    smi(tmp_path, full="echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9").write_text(
        "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9\n"
    )
    (first, *_) = problems(answer(tmp_path, index))
    assert first == "the NVIDIA driver does not work: NVIDIA-SMI has failed because it could not talk to the driver."


@pytest.mark.parametrize(
    ("init", "gpus", "says"),
    [
        ("return 0;", ["NVIDIA H200"], None),
        ("return 802;", [], "start nvidia-fabricmanager"),
        ("__builtin_trap();", [], "the process died with status -4"),
    ],
)
def test_the_drivers_library_is_asked(
    tmp_path: Path, index: Path, init: str, gpus: list[str], says: str | None
) -> None:
    source = tmp_path / "cuda.cpp"
    source.write_text(LIBCUDA % init)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    report = answer(tmp_path, index, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert [gpu["name"] for gpu in report["node"]["gpus"]] == gpus
    assert report["node"]["driver"]["trouble"] is says or says in report["node"]["driver"]["trouble"]


def test_nothing_fits_names_the_nearest(tmp_path: Path) -> None:
    index = publish(tmp_path / "index", stable(platform_tags=("manylinux_2_99_x86_64",)))
    smi(tmp_path, H100)
    status, text = doctor(tmp_path, "--index", str(index))
    assert status == 22
    assert f"nearest: {stable().file}\n  but it needs glibc 2.99" in text


class _Guarded(http.server.SimpleHTTPRequestHandler):
    """Serves to whoever shows the token, and points elsewhere from /moved/."""

    secret = "Basic " + base64.b64encode(b"__token__:sesame").decode()
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        elif self.headers["Authorization"] == self.secret or self.path.startswith("/open/"):
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str | None]]]:
    seen: list[str | None] = []
    handler = type("Handler", (_Guarded,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_an_index_that_asks_for_a_token_gets_it_and_nobody_else_does(tmp_path: Path, index: Path) -> None:
    (index / "open").mkdir()
    shutil.copy(index / "packages.json", index / "open")
    with serving(index) as (url, seen):
        refused = answer(tmp_path, url)
        given = answer(tmp_path, url, env={"HOPPERFORGE_INDEX_TOKEN": "sesame"})
        moved = answer(tmp_path, f"{url}/moved/open", env={"HOPPERFORGE_INDEX_TOKEN": "sesame"})
    assert refused["status"] == "index unreadable"
    assert "the server answers 401" in problems(refused)[0]
    assert "set HOPPERFORGE_INDEX_TOKEN" in problems(refused)[0]
    assert given["chosen"] == moved["chosen"] == stable().file
    assert seen == [None, _Guarded.secret, _Guarded.secret, None]
    assert "sesame" not in json.dumps([refused, given, moved])


def test_credentials_in_the_address_are_not_repeated(tmp_path: Path, index: Path) -> None:
    with serving(index) as (url, _):
        told = answer(tmp_path, url.replace("://", "://__token__:sesame@"))
    gone = answer(tmp_path, url.replace("://", "://__token__:sesame@"))
    assert told["chosen"] == stable().file
    assert gone["status"] == "index unreadable"
    assert "sesame" not in json.dumps([told, gone])


def test_a_file_cut_short_does_nothing(index: Path) -> None:
    text = doctor_source()
    words = [sys.executable, "-", "--index", str(index)]
    done = subprocess.run(words, input=text[: -len("    sys.exit(main())\n")], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout == b""


def test_the_verb_looks_at_the_interpreter_asked_for(tmp_path: Path, index: Path) -> None:
    wheelhouse = {"PATH": f"{smi(tmp_path, H100).parent}:{os.environ['PATH']}"}
    words = ("doctor", "node", f"index={index}", f"interpreter={sys.executable}")
    ended = hopperforge(*words, home=tmp_path, env=wheelhouse)
    assert ended.status == 21
    assert "GPU 0     NVIDIA H100 80GB HBM3, compute capability 9.0" in ended.out
    assert "error: the doctor found something wrong" in ended.err
    lines = hopperforge(*words, "cuda=12.8", "torch=2.9", "--json", home=tmp_path, env=wheelhouse)
    assert (lines.status, json.loads(lines.out)["chosen"]) == (20, stable().file)
    assert hopperforge("doctor", "node", "index=/nowhere", home=tmp_path).status == 23
    assert hopperforge("doctor", "node", home=tmp_path).status == 2


def test_replacing_a_field_keeps_the_catalog_readable(tmp_path: Path) -> None:
    odd = replace(stable(), requires_python=None, torch=None)
    assert answer(tmp_path, publish(tmp_path / "index", odd))["chosen"] == odd.file


def test_a_library_that_hangs_is_an_answer_too() -> None:
    # in a process of its own: forking from pytest's, which has threads, is warned of from Python 3.12 on
    ask = "import time; from hopperforge.node.looking import isolated; print(isolated(lambda: time.sleep(60), 0.5))"
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    assert done.stdout == "{'trouble': 'no answer within 0.5 s'}\n"
