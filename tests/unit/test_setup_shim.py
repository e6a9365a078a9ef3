"""The stand-ins for torch's build helpers, in a small setup.py of upstream's shape."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hopperforge.model.profile import Budget, Profile
from hopperforge.setup_job import ApiJob, job_environment, write_job

# The shape of upstream's setup.py: torch's helpers imported, the ninja writer replaced, one extension.
SETUP = """
import os, sys
sys.path.insert(0, os.environ["HOPPERFORGE_SHIM"])
import hopperforge_setup
hopperforge_setup.install()
import torch
from torch.utils.cpp_extension import BuildExtension, CUDAExtension, CUDA_HOME, _is_cuda_file, _maybe_write
from setuptools import setup

def write(path, cflags, post_cflags, cuda_cflags, cuda_post_cflags, sources, objects, **_):
    lines = ["rule cuda", "  command = nvcc $cuda -c $in -o $out", "rule cxx",
             "  command = " + torch.utils.cpp_extension.get_cxx_compiler() + " $cxx -c $in -o $out",
             "cuda = " + " ".join(cuda_cflags + cuda_post_cflags), "cxx = " + " ".join(cflags + post_cflags)]
    here = os.path.abspath(".")
    lines += [f"build {o}: {'cuda' if _is_cuda_file(s) else 'cxx'} {os.path.join(here, s)}"
              for s, o in zip(sources, objects)]
    _maybe_write(path, "\\n".join(lines) + "\\n")

torch.utils.cpp_extension._write_ninja_file = write
print("torch", torch.__version__, torch.version.cuda, CUDA_HOME)
switch = ["-DOFF"] if os.getenv("FLASH_ATTENTION_DISABLE_HDIM64") == "TRUE" else []
setup(
    name="p",
    version=hopperforge_setup.job["version"],
    ext_modules=[CUDAExtension(
        name="p._C",
        sources=["api.cpp"] + ["kernel.cu"],
        extra_compile_args={"cxx": ["-O1"], "nvcc": ["--threads", "2", "-O3", "--resource-usage"] + switch},
        include_dirs=[os.path.abspath(".")],
        py_limited_api=True,
    )],
    cmdclass={"build_ext": BuildExtension},
)
"""

API = (
    '#include <Python.h>\nextern "C" int kernel(); extern "C" PyObject* PyInit__C(void) { kernel(); return nullptr; }\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hopper = tmp_path / "hopper"
    hopper.mkdir()
    (hopper / "setup.py").write_text(SETUP)
    (hopper / "api.cpp").write_text(API)
    return tmp_path


def _profile(*switches: str) -> Profile:
    budget = Budget(wheel=1, library=1)
    return Profile(name="p", summary="", switches=frozenset(switches), architectures=frozenset(), budget=budget)


def _setup(folder: Path, job: ApiJob, profile: Profile) -> subprocess.CompletedProcess[str]:
    env = job_environment(write_job(folder, job), profile, {"PATH": "/usr/bin:/bin"})
    argv = [sys.executable, "setup.py", "build_ext", "--build-temp", "t", "--build-lib", str(folder / "lib")]
    return subprocess.run(argv, cwd=folder / "hopper", env=env, capture_output=True, text=True, check=False)


def test_units_are_upstreams_own_commands_without_places(folder: Path) -> None:
    answer = folder / "units.json"
    job = ApiJob(mode="units", root=folder, cuda="13.0", torch_release="2.9.1", torch_cuda="12.8", units=answer)
    done = _setup(folder, job, _profile("DISABLE_HDIM64"))
    assert done.returncode == 0, done.stderr
    assert "torch 2.9.1 12.8" in done.stdout
    (unit,) = json.loads(answer.read_text())["units"]
    assert unit["path"] == "hopper/kernel.cu"
    assert unit["arguments"][0] == "-Ihopper"
    assert unit["arguments"][-2:] == ["-O3", "-DOFF"]
    assert "--expt-relaxed-constexpr" in unit["arguments"]
    assert not {"--threads", "2", "--resource-usage", "-c", "-o"} & set(unit["arguments"])
    assert str(folder) not in answer.read_text()


def test_pack_binds_the_api_file_to_given_objects(folder: Path) -> None:
    made = folder / "kernel.o"
    subprocess.run(
        ["gcc", "-fPIC", "-x", "c", "-", "-c", "-o", made], input="int kernel() { return 7; }", text=True, check=True
    )
    job = ApiJob(
        mode="pack", root=folder, cuda="13.0", torch_release="2.9.1", compiler=Path("/usr/bin/g++"), objects=(made,)
    )
    done = _setup(folder, job, _profile())
    assert done.returncode == 0, done.stderr
    library = folder / "lib" / "p" / "_C.abi3.so"
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    assert "PyInit__C" in symbols.stdout
    assert str(folder).encode() not in library.read_bytes()


def test_a_compile_that_fails_fails_setup(folder: Path) -> None:
    (folder / "hopper" / "api.cpp").write_text("this is no C++\n")
    job = ApiJob(mode="pack", root=folder, cuda="13.0", torch_release="2.9.1", compiler=Path("/usr/bin/g++"))
    done = _setup(folder, job, _profile())
    assert done.returncode != 0
    assert "api.cpp" in done.stdout + done.stderr
