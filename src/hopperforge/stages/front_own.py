"""Fronts of a recipe's own sources: compiled by g++, linked with a kernel pack, laid out as a wheel.

All of it runs in the engine's own folder by relative paths, so that no place shows in the bytes. What is done is the
same for every kind; what a kind has in DT_NEEDED, shows to others or ships is the recipe's to say. Upstream's API file
is bound by `front_torch`.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from hopperforge.errors import CompileError
from hopperforge.model.cell import Build
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.keys import content_key
from hopperforge.model.pack import KernelPack
from hopperforge.model.profile import Profile
from hopperforge.model.wheel import RawWheel
from hopperforge.provenance.contents import EXPRESSION
from hopperforge.run.engine import Command, Mount
from hopperforge.run.files import make_folder, storage_guard, temporary_folder
from hopperforge.run.process import Completed
from hopperforge.run.workspace import Workspace
from hopperforge.stages.elf import weaken_unique
from hopperforge.stages.front_inputs import FrontInputs, build_facts, last_writers, licence_hashes
from hopperforge.stages.front_layout import package_files, placeholders, raw_wheel
from hopperforge.stages.front_sources import COPIED, SHARED, SHARED_SOURCES, front_sources, matching
from hopperforge.stages.jax_kit import HEADERS
from hopperforge.stages.repair import repair_settings
from hopperforge.store.packs import read_pack

_STANDARD: Final = "-std=c++17"
_CUDART: Final = ("-l:libcudart_static.a", "-ldl", "-lrt", "-lpthread")
_OUTSIDE: Final = "/out"
_SOURCE: Final = "/src"
_FRAMEWORK: Final = "/framework"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """A framework to bind against, unpacked in `root`: where in it headers are, and libraries to name in DT_NEEDED."""

    root: Path
    include: tuple[str, ...]
    lib: str


def switch_macros(profile: Profile) -> tuple[str, ...]:
    """Define the profile's switches as upstream's setup.py does: DISABLE_SM80 is the macro ..._DISABLE_SM8x."""
    names = (switch.replace("SM80", "SM8x") for switch in sorted(profile.switches))
    return tuple(f"-DFLASHATTENTION_{name}" for name in names)


def compile_arguments(inputs: FrontInputs) -> tuple[str, ...]:
    """Make the arguments of every compile but where includes are."""
    facts = {key: value for key, value in build_facts(inputs).items() if isinstance(value, str)}
    return (
        _STANDARD,
        *("-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
        *("-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra"),
        *switch_macros(inputs.build.profile),
        *(f'-DHOPPERFORGE_{name}="{value}"' for name, value in facts.items()),
    )


def include_arguments(headers: Headers | None) -> tuple[str, ...]:
    """Make the include paths, relative to the folder that compiles run in; what is not ours warns of nothing."""
    framework = [f"framework/{place}" for place in headers.include] if headers else []
    others = ("hopper", "csrc/cutlass/include", "toolkit/include", "toolkit/include/cccl", *framework)
    ours = ("include", "src", "kernels", *(f"shared/{name}" for name in SHARED))
    return (*(f"-I{place}" for place in ours), *(word for place in others for word in ("-isystem", place)))


def link_arguments(build: Build, headers: Headers | None) -> tuple[str, ...]:
    """Make the link's arguments after the objects, relative to the folder it runs in."""
    front = build.recipe.front
    needed = tuple(f"-l:{name}" for name in sorted(build.needed))
    framework = (f"-Lframework/{headers.lib}",) if headers and headers.lib else ()
    soname = (f"-Wl,-soname,{front.soname}",) if front.soname else ()
    return (
        *("-Wl,--no-as-needed", *framework, *needed, "-Wl,--as-needed", "-Ltoolkit/lib64", *_CUDART),
        *soname,
        *wrap_arguments(build),
        f"-Wl,--version-script={front.exports}",
        "-Wl,--exclude-libs,ALL",
        "-Wl,--build-id=sha1",
        "-Wl,--gc-sections",
        "-Wl,-z,relro,-z,now",
        "-Wl,-z,noexecstack",
        "-Wl,--strip-all",
    )


def archive_arguments(build: Build) -> tuple[str, ...]:
    """Make the arguments of the link that makes one object; groups end there, for what they name is hidden next."""
    return ("-r", "-nostdlib", "-Wl,--force-group-allocation", *wrap_arguments(build))


def wrap_arguments(build: Build) -> tuple[str, ...]:
    """Have the sources stand in for symbols that kernels ask others for."""
    return tuple(f"-Wl,--wrap={name}" for name in sorted(build.recipe.front.wrap))


def program_arguments(build: Build, place: str) -> tuple[str, ...]:
    """Make the link's arguments of a program at `place` of the package, which finds the library from where it lies."""
    library = build.recipe.front.library.rpartition("/")[0]
    up = "/".join(".." for _ in Path(place).parent.parts)
    found = "/".join(part for part in ("$ORIGIN", up, library) if part)
    return (
        f"-Wl,-rpath,{found}",
        *("-Ltoolkit/lib64", *_CUDART),
        *("-Wl,--build-id=sha1", "-Wl,--gc-sections", "-Wl,-z,relro,-z,now", "-pie", "-Wl,--strip-all"),
    )


def front_flags(inputs: FrontInputs, headers: Headers | None) -> tuple[str, ...]:
    """List the flags that shape the front's bytes, for keys and records; no place is among them."""
    front = inputs.build.recipe.front
    programs = (word for place in sorted(front.programs) for word in program_arguments(inputs.build, place))
    return (
        *compile_arguments(inputs),
        *include_arguments(headers),
        *link_arguments(inputs.build, headers),
        *(archive_arguments(inputs.build) if front.archive else ()),
        *programs,
    )


def own_build_key(inputs: FrontInputs, headers: Headers | None, kernels: str, sbom: str) -> str:
    """Key a package by all that changes its bytes; `kernels` is the key of its pack, `sbom` its bill's sha256."""
    build, front = inputs.build, inputs.build.recipe.front
    return content_key(
        "own-build",
        {
            "kernels": kernels,
            "kind": front.kind,
            "sources": front_sources(build),
            "compiled": list(front.sources),
            "shown": list(front.symbols),
            "source_trees": {**inputs.source.pin.trees, "patched": inputs.source.front_tree},
            "library": front.library,
            "archive": front.archive,
            "programs": {place: list(patterns) for place, patterns in front.programs.items()},
            "files": dict(front.files),
            "tarball": front.tarball,
            "requires": list(front.requires),
            "requires_python": front.requires_python,
            "facts": {name: str(value) for name, value in build_facts(inputs).items()},
            "placeholders": placeholders(inputs),
            "flags": front_flags(inputs, headers),
            "repair": {**repair_settings(excluded(build)), "auditwheel": version("auditwheel")},
            "package": [build.recipe.package.distribution, build.recipe.package.package, build.recipe.package.summary],
            "licence": EXPRESSION,
            "licences": licence_hashes(inputs),
            "sbom": sbom,
            "toolkit": inputs.toolkit.key,
            "host_compiler": inputs.compiler.key,
            "epoch": inputs.source.pin.epoch,
            "writers": own_writers(front),
            "image": "host" if inputs.image is None else inputs.image.id,
        },
    )


def own_writers(front: Front) -> dict[str, str]:
    """List what writes the bytes of a package beside the compilers, with versions."""
    return last_writers(tarball=front.tarball)


def excluded(build: Build) -> frozenset[str]:
    """The libraries that auditwheel must not look for: the framework's, and our own that our programs need."""
    soname = build.recipe.front.soname
    return build.needed | ({soname} if soname else frozenset())


def bind_own(
    inputs: FrontInputs, pack: KernelPack, headers: Headers | None, *, jobs: int, out: Path, workspace: Workspace
) -> RawWheel:
    """Make the wheel in `out`, tagged for the machine it was linked on; `jobs` compilers run at once.

    CompileError names the log.
    """
    build = inputs.build
    log = make_folder(workspace.logs / "front") / f"{build.recipe.name}-{build.version}-{inputs.engine.name}"
    with storage_guard(workspace.work), temporary_folder(make_folder(workspace.work), "front-") as folder:
        bench = replace(_Bench.lay_out(inputs, headers, folder, log, workspace), jobs=jobs)
        objects = [
            path.relative_to(folder).as_posix() for path in read_pack(pack.archive, make_folder(folder / "pack"))
        ]
        made = bench.make(objects)
        return raw_wheel(inputs, package_files(inputs, made), out=out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """A folder to compile in, which the engine's commands see as `inside`; links in it lead to what is only read.

    `log` is how the names of logs begin.
    """

    inputs: FrontInputs
    headers: Headers | None
    folder: Path
    inside: Path
    mounts: tuple[Mount, ...]
    log: Path
    workspace: Workspace
    jobs: int = 1

    @classmethod
    def lay_out(
        cls, inputs: FrontInputs, headers: Headers | None, folder: Path, log: Path, workspace: Workspace
    ) -> "_Bench":
        engine, recipe = inputs.engine, inputs.build.recipe
        out = Mount(outside=folder, inside=_OUTSIDE, writable=True)
        source = Mount(outside=inputs.source.root.resolve(), inside=_SOURCE)
        framework = [Mount(outside=headers.root.resolve(), inside=_FRAMEWORK)] if headers else []
        for name in COPIED:
            if (recipe.folder / name).is_dir():
                shutil.copytree(recipe.folder / name, folder / name)
        if recipe.front.shares is not None:
            for name in SHARED:
                if (recipe.front.shares / name).is_dir():
                    shutil.copytree(recipe.front.shares / name, folder / "shared" / name)
        for name, place in (
            *((tree, engine.place(source) / tree) for tree in ("hopper", "csrc")),
            ("toolkit", inputs.toolkit.root),
            *(("framework", engine.place(mount)) for mount in framework),
        ):
            (folder / name).symlink_to(place)
        make_folder(folder / "objects")
        return cls(
            inputs=inputs,
            headers=headers,
            folder=folder,
            inside=engine.place(out),
            mounts=(out, source, *framework),
            log=log,
            workspace=workspace,
        )

    def make(self, objects: Sequence[str]) -> Mapping[str, Path]:
        """Compile, link and archive; returns the files made, by their place in the package."""
        front = self.inputs.build.recipe.front
        own = self._compile((*front.sources, *([f"shared/{SHARED_SOURCES}"] if front.shares else [])))
        made = {front.library: self._link(own, objects)}
        if front.archive is not None:
            made[front.archive] = self._archive(Path(front.archive).name, (*own, *objects))
        for place, sources in sorted(front.programs.items()):
            made[place] = self._program(place, sources)
        return made

    def _compile(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Compile the sources that match, some at once; returns their objects in the order of the sources' paths."""
        sources = sorted({path for pattern in patterns for path in matching(self.folder, pattern)})
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            return tuple(pool.map(self._compile_one, (path.relative_to(self.folder).as_posix() for path in sources)))

    def _compile_one(self, source: str) -> str:
        made = f"objects/{source.replace('/', '-')}.o"
        words = (*compile_arguments(self.inputs), *include_arguments(self.headers), "-c", source, "-o", made)
        self._run(source, str(self.inputs.compiler.path), *words)
        return made

    def _link(self, own: Sequence[str], objects: Sequence[str]) -> Path:
        build = self.inputs.build
        name = Path(build.recipe.front.library).name
        words = ("-shared", "-o", name, *own, *objects, *link_arguments(build, self.headers))
        self._run(name, str(self.inputs.compiler.path), *words)
        return self.folder / name

    def _archive(self, name: str, objects: Sequence[str]) -> Path:
        """Make one object of all and the CUDA runtime, hide in it what the library does not show, and archive that.

        So it goes together with whatever else a program links: another CUDA runtime, or upstream's own kernels.
        """
        whole, build = f"{Path(name).stem}.o", self.inputs.build
        words = (*archive_arguments(build), "-o", whole, *objects, "-Ltoolkit/lib64", _CUDART[0])
        self._run(whole, str(self.inputs.compiler.path), *words)
        linked = self.folder / whole
        linked.write_bytes(weaken_unique(linked.read_bytes()))
        shown = (f"--keep-global-symbol={pattern}" for pattern in build.recipe.front.symbols)
        self._run(f"{whole}-hidden", "objcopy", "--wildcard", *shown, "--strip-debug", whole)
        self._run(name, "ar", "rcsD", name, whole)
        return self.folder / name

    def _program(self, place: str, sources: Iterable[str]) -> Path:
        build, name = self.inputs.build, Path(place).name
        library = Path(build.recipe.front.library).name
        words = ("-o", f"program-{name}", *self._compile(sources), library, *program_arguments(build, place))
        self._run(name, str(self.inputs.compiler.path), *words)
        return self.folder / f"program-{name}"

    def _run(self, what: str, *argv: str) -> None:
        log = self.log.with_name(f"{self.log.name}-{what.replace('/', '-')}.log")
        done = self.inputs.engine.run(
            Command(
                name=f"front-{what}",
                argv=argv,
                cwd=self.inside,
                env=self._environment(),
                mounts=self.mounts,
                memory=None,
            ),
            log=log,
            on_line=lambda line: self.workspace.reporter.output("front", line),
        )
        if done.status != 0:
            raise _failure(self.inputs.build, what, done, log)

    def _environment(self) -> Mapping[str, str]:
        """All a compiler gets; see `unit_job`."""
        return {
            "PATH": self.workspace.environ.get("PATH", ""),
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": str(self.inputs.source.pin.epoch),
            "TMPDIR": str(self.inside),
        }


def _failure(build: Build, what: str, done: Completed, log: Path) -> CompileError:
    return CompileError(
        f"the {build.recipe.front.kind} front of {build} did not build: {what} ended with status {done.status}",
        detail=[*done.tail, f"log: {log}"],
        hint=f"less {log}",
    )


def headers_of(inputs: FrontInputs, kit: Path | None) -> Headers | None:
    """Say where a front finds its framework in an unpacked `kit`; None where it binds to none."""
    match inputs.build.recipe.front.kind:
        case FrontKind.TORCH if kit is not None:
            include = ("torch/include", "torch/include/torch/csrc/api/include")
            return Headers(root=kit, include=include, lib="torch/lib")
        case FrontKind.JAX if kit is not None:
            return Headers(root=kit, include=(HEADERS,), lib="")
        case _:
            return None
