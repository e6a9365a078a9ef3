"""The catcher of recipes/fa3-cpp: host code that ends the process, prints, or drops an error becomes a status.

Compiles the recipe's own sources with a stand-in for upstream's host code; no kernels, no GPU. About 5 s.
"""

import subprocess

import pytest
from tests.integration.command import PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

RECIPE = PROJECT / "recipes" / "fa3-cpp"
SOURCES = ("launching.cpp", "status.cpp")
WRAPPED = ("exit", "fprintf", "cudaGetLastError")
# The few declarations of the CUDA runtime that the catcher needs, and a runtime that fails when told to.
RUNTIME = """
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
extern "C" cudaError_t cudaGetLastError();
inline const char *cudaGetErrorString(cudaError_t error) { return error == 0 ? "no error" : "invalid argument"; }
inline const char *cudaGetErrorName(cudaError_t error) { return error == 0 ? "cudaSuccess" : "cudaErrorInvalidValue"; }
"""
LAST_ERROR = """
#include <cuda_runtime_api.h>
cudaError_t pending = cudaSuccess;
cudaError_t cudaGetLastError() { const cudaError_t was = pending; pending = cudaSuccess; return was; }
"""
STAND_IN = """
#include <cuda_runtime_api.h>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include "launching.h"

using namespace hopperforge::fa3;
extern cudaError_t pending;

// as upstream's CHECK_CUDA
static void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "CUDA error (%s:%d): %s\\n", "launch.h", 7, "invalid argument");
  exit(1);
}
static void fails() { pending = cudaErrorInvalidValue; check(cudaGetLastError()); std::printf("went on\\n"); }
static void drops() { pending = cudaErrorInvalidValue; cudaGetLastError(); check(cudaGetLastError()); }
static void ends() { exit(3); }
static void works() { check(cudaGetLastError()); }

static void show(const char *name, void (*call)()) {
  const Status status = guarded(call);
  std::printf("%s: %d: %s\\n", name, static_cast<int>(status), status == HOPPERFORGE_FA3_OK ? "" : message());
}

int main() {
  show("works", works);
  show("fails", fails);
  show("drops", drops);
  show("ends", ends);
  show("works again", works);
  std::thread([] { show("in a thread", fails); }).join();
  fprintf(stderr, "outside, %s is as ever\\n", "fprintf");
  pending = cudaErrorInvalidValue;
  check(cudaGetLastError());
}
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The stand-in, run."""
    folder = tmp_path_factory.mktemp("launching")
    (folder / "cuda_runtime_api.h").write_text(f"#pragma once\n{RUNTIME}")
    (folder / "last_error.cpp").write_text(LAST_ERROR)
    (folder / "main.cpp").write_text(STAND_IN)
    named = [
        f'-DHOPPERFORGE_{name}="{value}"' for name, value in (("PROFILE", "p"), ("VERSION", "1"), ("CUDA", "13.0"))
    ]
    sources = [folder / "main.cpp", folder / "last_error.cpp", *(RECIPE / "src" / name for name in SOURCES)]
    include = [f"-I{place}" for place in (folder, RECIPE / "include", RECIPE / "src")]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        "-pthread",
        *named,
        *include,
        *map(str, sources),
        *wraps,
        "-o",
        str(folder / "main"),
    ]
    subprocess.run(command, check=True)
    return subprocess.run([folder / "main"], capture_output=True, text=True, check=False)


def test_a_failed_launch_is_a_status_with_upstream_s_words(ended: subprocess.CompletedProcess[str]) -> None:
    assert (
        "fails: 8: a kernel did not start: invalid argument (cudaErrorInvalidValue); "
        "upstream says: CUDA error (launch.h:7): invalid argument\n"
    ) in ended.stdout
    assert "went on" not in ended.stdout


def test_an_error_that_host_code_drops_is_kept(ended: subprocess.CompletedProcess[str]) -> None:
    assert "drops: 8: a kernel did not start: invalid argument (cudaErrorInvalidValue)\n" in ended.stdout


def test_the_end_of_the_process_is_caught_without_an_error_too(ended: subprocess.CompletedProcess[str]) -> None:
    assert "ends: 8: a kernel did not start" in ended.stdout


def test_calls_after_it_work_and_every_thread_has_its_own(ended: subprocess.CompletedProcess[str]) -> None:
    assert "works: 0: \n" in ended.stdout
    assert "works again: 0: \n" in ended.stdout
    assert "in a thread: 8: " in ended.stdout


def test_outside_of_a_launch_nothing_is_caught(ended: subprocess.CompletedProcess[str]) -> None:
    assert "outside, fprintf is as ever\nCUDA error (launch.h:7): invalid argument\n" in ended.stderr
    assert ended.returncode == 1
