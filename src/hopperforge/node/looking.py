"""Looking at the machine: GPUs and their driver, torch, the C library."""

from __future__ import annotations

import ctypes
import importlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email import message_from_string
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Callable

from hopperforge.node.values import Driver, Gpu, Torch
from hopperforge.node.versions import Numbers, normal, numbers

CUDA_TROUBLE = {
    34: "the libcuda.so.1 found is a stub for linking: remove its folder from LD_LIBRARY_PATH",
    100: "CUDA sees no GPU: check CUDA_VISIBLE_DEVICES, and that the container or the job was given one",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there",
    802: "the GPUs are not ready: start nvidia-fabricmanager, in the version of the driver",
    803: "libcuda.so.1 and the kernel's driver are of different versions: reboot, or mend what the container mounts",
    804: "the CUDA compatibility package does not go with this GPU or driver: remove cuda-compat",
}


def isolated(question: Callable[[], Mapping[str, Any]], seconds: float) -> Mapping[str, Any]:
    """Answer a question in a process of its own, so that a library that crashes or hangs is an answer: "trouble"."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(question, sender), daemon=True)
    child.start()
    sender.close()
    answer: Mapping[str, Any] = {"trouble": f"no answer within {seconds:g} s"}
    try:
        if receiver.poll(seconds):
            answer = json.loads(receiver.recv_bytes())
    except EOFError:
        child.join(5)
        answer = {"trouble": f"the process died with status {child.exitcode}"}
    finally:
        child.kill()
        child.join(5)
    return answer


def _answer(question: Callable[[], Mapping[str, Any]], sender: Any) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    try:
        answer = question()
    except BaseException as error:  # noqa: BLE001 - whatever a foreign library raises is the answer
        first = next(iter(str(error).strip().splitlines()), "")
        answer = {"trouble": f"{type(error).__name__}: {first}"}
    sender.send_bytes(json.dumps(answer).encode())


def find_libc() -> tuple[str, Numbers]:
    """Say which C library this Python runs on."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError, AttributeError):
        name, version = "", ""
    if name == "glibc":
        return name, numbers(version)
    return ("musl" if list(Path("/lib").glob("ld-musl-*")) else "another C library"), ()


def ask_smi() -> Mapping[str, Any]:
    """Ask nvidia-smi for the driver and every GPU; a driver that is too old to know a field is asked for less."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    said = ""
    for fields in ("name,driver_version,compute_cap,mig.mode.current", "name,driver_version"):
        status, said = _say([program, f"--query-gpu={fields}", "--format=csv,noheader"])
        if status == 0:
            rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]
            _, header = _say([program])
            return {"rows": rows, "cuda": re.findall(r"CUDA[A-Z ]* Version\s*:\s*(\d+\.\d+)", header)[:1]}
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return {"trouble": lines[0] if lines else "nvidia-smi says nothing"}


def _say(words: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"nvidia-smi: {error}"
    return done.returncode, done.stdout.decode(errors="replace")


def ask_cuda() -> Mapping[str, Any]:
    """Ask the driver's library what it serves and which GPUs a process sees; {} where there is none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    number, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    library.cuDriverGetVersion(ctypes.byref(number))
    version = number.value
    status = library.cuInit(0)
    if status != 0:
        return {"version": version, "status": status}
    library.cuDeviceGetCount(ctypes.byref(number))
    devices = []
    for index in range(number.value):
        device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceGetName(name, 256, device)
        library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        library.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        devices.append([name.value.decode(errors="replace"), major.value, minor.value])
    return {"version": version, "status": 0, "devices": devices}


def join_gpus(smi: Mapping[str, Any], cuda: Mapping[str, Any]) -> tuple[Gpu, ...]:
    """Give the GPUs that CUDA shows a process; where CUDA cannot be asked, those of nvidia-smi."""
    rows = smi.get("rows", [])
    split = {row[0] for row in rows if "Enabled" in row[3:4]}
    if "devices" in cuda:
        found = (Gpu(name, (major, minor)) for name, major, minor in cuda["devices"])
        return tuple(replace(gpu, mig=any(gpu.name.startswith(name) for name in split)) for gpu in found)
    return tuple(Gpu(row[0], numbers("".join(row[2:3])) or None, row[0] in split) for row in rows)


def join_driver(smi: Mapping[str, Any], cuda: Mapping[str, Any]) -> Driver | None:
    """Give what is known of the driver; None where neither its program nor its library is there."""
    if not smi and not cuda:
        return None
    version = next((row[1] for row in smi.get("rows", [])), None)
    number, status = cuda.get("version", 0), cuda.get("status")
    serves = (number // 1000, number % 1000 // 10) if number else numbers("".join(smi.get("cuda", []))) or None
    # the library is what programs talk to: where it works, nvidia-smi may say what it likes
    trouble = None if status == 0 else cuda.get("trouble") or smi.get("trouble")
    if status not in (None, 0):
        trouble = CUDA_TROUBLE.get(status, f"cuInit answers error {status}")
    return Driver(version, serves, trouble)


def ask_torch() -> Mapping[str, Any]:
    """Import torch and ask it."""
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return {}
        raise
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cxx11_abi": torch.compiled_with_cxx11_abi()}


def name_of(one: Distribution) -> str:
    """The normalised name; "" for a folder that holds no metadata any more.

    `metadata` of such a one is empty, None, or an error, by the Python and by who else finds distributions in it.
    """
    text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    return normal(message_from_string(text)["Name"] or "")


def look_at_torch(own: Sequence[Distribution], answer: Mapping[str, Any]) -> Torch | None:
    """Say which torch is there: what it said itself, else what its files say without being run."""
    if "version" in answer:
        cuda = numbers(answer["cuda"] or "")[:2]
        return Torch(answer["version"], cuda or None, bool(answer["cxx11_abi"]))
    found = [one for one in own if name_of(one) == "torch"]
    if not found:
        trouble = answer.get("trouble")
        return None if trouble is None else Torch("of unknown version", None, None, trouble)
    folder = Path(str(found[0].locate_file("torch")))
    said = dict(re.findall(rb"^(\w+)(?:: [^=]+)? = '([^']+)'", _read(folder / "version.py"), re.MULTILINE))
    version = said.get(b"__version__", found[0].version.encode()).decode()
    cuda = numbers(said.get(b"cuda", b"").decode())[:2]
    trouble = answer.get("trouble", "the import finds no module of that name")
    return Torch(version, cuda or None, read_abi(_read(folder / "lib" / "libc10.so")), trouble)


def read_abi(library: bytes) -> bool | None:
    """Read torch's C++ ABI off libc10.so: c10::Error takes a std::string, and its mangled name says which of the two.

    | in the name                              | ABI   |
    |------------------------------------------|-------|
    | SourceLocationENSt7__cxx1112basic_string | C++11 |
    | SourceLocationESs                        | old   |
    """
    if b"SourceLocationENSt7__cxx1112basic_string" in library:
        return True
    return False if b"SourceLocationESs" in library else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
