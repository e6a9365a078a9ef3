"""Stand-ins for torch's build helpers, inside upstream's patched setup.py.

Upstream's setup.py imports torch only to build. Installing a CUDA torch of several gigabytes to compile one file
is not needed: what the build takes from torch are headers, libraries to link, and a handful of functions. This
module supplies those functions, so that setup.py runs unchanged and stays the only place that knows which units
a set of switches needs and with which flags.

It runs in a process of its own, outside hopperforge: Python 3.9 (builder images have no newer), standard library and
setuptools only. The job file named by HOPPERFORGE_JOB says what to do; `Job` documents its fields.

Three modes:
    units    write the unit list as JSON and stop: nothing is compiled
    pack     compile upstream's API file and link it with the objects of a kernel pack
    inline   compile everything with upstream's own ninja file, as upstream does
"""

import json
import os
import shlex
import subprocess
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from setuptools import Extension
from setuptools.command.build_ext import build_ext


class Job(TypedDict):
    """The fields of a job file; paths are absolute.

    `root` is the folder that holds `hopper/` and `csrc/`; `torch` the unpacked torch wheel; `objects` the pack's
    objects in link order (mode pack); `units` where to write the unit list (mode units); `include` folders for
    the API file, searched before the toolkit's; `compile` arguments of the API file that overrule upstream's; `link`
    further arguments of the link; `jobs` ninja's job count (mode inline).
    """

    mode: str
    root: str
    version: str
    summary: str
    license: str
    requires: str
    cuda: str
    cuda_home: str
    torch: str
    torch_release: str
    torch_cuda: str
    compiler: str
    ninja: str
    objects: list[str]
    include: list[str]
    compile: list[str]
    link: list[str]
    units: str
    jobs: int


job: Job = json.loads(Path(os.environ["HOPPERFORGE_JOB"]).read_text(encoding="utf-8"))

# What torch.utils.cpp_extension adds to a CUDA compile; without --expt-relaxed-constexpr the kernels do not compile.
TORCH_NVCC_FLAGS: Final = (
    "-D__CUDA_NO_HALF_OPERATORS__",
    "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__",
    "--expt-relaxed-constexpr",
    "-Xcompiler",
    "-fPIC",
)

# nvcc options of upstream's that print or schedule and change no code: left out of the unit list.
_UNKEYED: Final = frozenset({"--resource-usage", "--ftemplate-backtrace-limit=0"})


def install() -> None:
    """Put the stand-ins where setup.py imports torch from."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch.utils", "torch.utils.cpp_extension")}
    helpers = modules["torch.utils.cpp_extension"]
    for name, value in _helpers().items():
        setattr(helpers, name, value)
    for name, value in {
        "__version__": job["torch_release"],
        "version": types.SimpleNamespace(cuda=job["torch_cuda"]),
        "utils": modules["torch.utils"],
    }.items():
        setattr(modules["torch"], name, value)
    setattr(modules["torch.utils"], "cpp_extension", helpers)  # noqa: B010 - ModuleType declares no attributes
    sys.modules.update(modules)
    # nvcc would otherwise be asked for dependency files, which name paths and serve only rebuilds in place.
    os.environ["TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES"] = "1"


def _helpers() -> dict[str, Any]:
    return {
        "BuildExtension": Binding,
        "CUDAExtension": Extension,
        "CppExtension": Extension,
        "CUDA_HOME": job["cuda_home"],
        "IS_HIP_EXTENSION": False,
        "IS_WINDOWS": False,
        "COMMON_HIP_FLAGS": [],
        "SUBPROCESS_DECODE_ARGS": (),
        "get_cxx_compiler": lambda: job["compiler"],
        "_join_cuda_home": lambda *parts: str(Path(job["cuda_home"], *parts)),
        "_join_rocm_home": lambda *parts: str(Path(*parts)),
        "_is_cuda_file": lambda path: path.endswith(".cu"),
        "_maybe_write": lambda path, content: Path(path).write_text(content, encoding="utf-8"),
    }


class Binding(build_ext):
    """The `build_ext` command: one extension, in the mode the job asks for."""

    def build_extension(self, ext: Extension) -> None:
        """Build `ext`, or write its unit list."""
        sources = [str(source) for source in ext.sources]
        cuda = [source for source in sources if source.endswith(".cu")]
        if job["mode"] == "units":
            _write_units(self._ninja_file(ext, cuda))
        elif job["mode"] == "pack":
            api = self._compile(ext, [source for source in sources if source not in cuda])
            self._link(ext, [*api, *job["objects"]])
        elif job["mode"] == "inline":
            self._link(ext, self._compile(ext, sources))
        else:
            message = f"unknown mode {job['mode']!r} in {os.environ['HOPPERFORGE_JOB']}"
            raise SystemExit(message)

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library for the limited API: fa3_fwd/_C.abi3.so."""
        return str(Path(*fullname.split("."))) + ".abi3.so"

    def _ninja_file(self, ext: Extension, sources: Sequence[str]) -> Path:
        """Have upstream write its own ninja file, which decides the flags of every source."""
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        includes = _quoted(f"-I{path}" for path in (*ext.include_dirs, *job["include"], *_torch_includes()))
        flags: dict[str, list[str]] = ext.extra_compile_args  # type: ignore[assignment]  # a dict by torch's convention
        write = sys.modules["torch.utils.cpp_extension"]._write_ninja_file  # noqa: SLF001 - upstream's replacement
        write(
            path=str(folder / "build.ninja"),
            cflags=["-fPIC", "-fvisibility=hidden", *_quoted(_place_free()), *includes],
            post_cflags=["-DTORCH_EXTENSION_NAME=_C", *flags["cxx"], *job["compile"]],
            cuda_cflags=[*_place_free_kernels(), *_quoted(f"-I{path}" for path in ext.include_dirs)],
            cuda_post_cflags=[*TORCH_NVCC_FLAGS, *flags["nvcc"]],
            cuda_dlink_post_cflags=None,
            sources=list(sources),
            objects=[str(folder / f"{Path(source).stem}.o") for source in sources],
            ldflags=None,
            library_target=None,
            with_cuda=True,
        )
        return folder / "build.ninja"

    def _compile(self, ext: Extension, sources: Sequence[str]) -> list[str]:
        ninja_file = self._ninja_file(ext, sources)
        _run("compiling", [job["ninja"], "-C", str(ninja_file.parent), "-j", str(job["jobs"]), "-v"])
        return [str(ninja_file.parent / f"{Path(source).stem}.o") for source in sources]

    def _link(self, ext: Extension, objects: Sequence[str]) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        _run("linking", [job["compiler"], "-shared", "-o", str(target), *objects, *job["link"]])


def _quoted(words: Iterable[str]) -> list[str]:
    """Ninja hands its commands to a shell: a blank in a folder's name must not end the word."""
    return [shlex.quote(word) for word in words]


def _run(what: str, argv: Sequence[str]) -> None:
    """Run a tool whose own words are the error message: setuptools' traceback would only bury them."""
    done = subprocess.run(argv, check=False)  # noqa: S603 - argv list, no shell
    if done.returncode != 0:
        message = f"hopperforge: {what} failed with status {done.returncode}"
        raise SystemExit(message)


def _place_free() -> list[str]:
    """Make the names of files that end up in the library's messages the same on every machine."""
    places = {job["root"]: "", job["torch"]: "torch/", job["cuda_home"]: "cuda/"}
    return [f"-ffile-prefix-map={place}/={name}" for place, name in places.items()]


def _place_free_kernels() -> list[str]:
    """Do the same for kernels compiled here; those of the unit list are compiled by relative paths already."""
    if job["mode"] != "inline":
        return []
    return [word for flag in _quoted(_place_free()) for word in ("-Xcompiler", flag)]


def _torch_includes() -> list[str]:
    include = Path(job["torch"]) / "include"
    return [str(include), str(include / "torch/csrc/api/include"), str(Path(job["cuda_home"]) / "include")]


def _write_units(ninja_file: Path) -> None:
    """Read the commands of upstream's ninja file back and write them as the unit list, free of places."""
    listing = subprocess.run(  # noqa: S603 - argv list, no shell
        [job["ninja"], "-C", ninja_file.parent, "-t", "compdb"], check=True, capture_output=True, text=True
    )
    units = [
        {"path": _relative(command["file"]), "arguments": _arguments(shlex.split(command["command"]))}
        for command in json.loads(listing.stdout)
    ]
    Path(job["units"]).write_text(json.dumps({"units": units}, indent=1), encoding="utf-8")


def _arguments(command: Sequence[str]) -> list[str]:
    """Keep nvcc's arguments without program, input, output, thread count and what only prints."""
    arguments: list[str] = []
    words = iter(command[1:])
    for word in words:
        if word in {"-c", "-o", "--threads"}:
            next(words)
        elif word.startswith("-I"):
            arguments.append("-I" + _relative(word.removeprefix("-I")))
        elif word not in _UNKEYED:
            arguments.append(word)
    return arguments


def _relative(path: str) -> str:
    return str(Path(path).relative_to(job["root"]))
