"""The toolkit stage: a CUDA compiler from one of its origins, known by its fingerprint.

Where it lies and who installed it do not matter: equal bytes have an equal key. Putting one together from what is
fetched is in `stages.toolkit_assembly`, the host compiler in `stages.host_compiler`.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.matrix import Matrix
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.toolkit import Toolkit, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import CudaVersion, ToolkitVersion
from hopperforge.run.files import make_folder
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace
from hopperforge.stages.fingerprint import fingerprint
from hopperforge.stages.toolkit_assembly import FETCHED, assemble_toolkit, is_assembled, origin_is_declared

PARTS: Final = {
    "nvcc": "bin/nvcc",
    "nvcc.profile": "bin/nvcc.profile",
    "cudafe++": "bin/cudafe++",
    "ptxas": "bin/ptxas",
    "fatbinary": "bin/fatbinary",
    "nvlink": "bin/nvlink",
    "cicc": "nvvm/bin/cicc",
    "libdevice": "nvvm/libdevice/libdevice.10.bc",
    "cudart_static": "lib64/libcudart_static.a",
}
"""The files of a toolkit that decide an object's or a library's bytes, by the name they have in a fingerprint."""

_ORIGINS: Final = {
    ToolkitChoice.AUTO: (ToolkitOrigin.SYSTEM, *FETCHED),
    ToolkitChoice.SYSTEM: (ToolkitOrigin.SYSTEM,),
    ToolkitChoice.FETCHED: FETCHED,
    ToolkitChoice.REGISTRY: (ToolkitOrigin.REGISTRY,),
    ToolkitChoice.REDIST: (ToolkitOrigin.REDIST,),
}
_RUNTIME_HEADER: Final = "include/cuda_runtime.h"
_CCCL_HEADERS: Final = ("include/cccl/cuda/std/cstdint", "include/cuda/std/cstdint")
_RELEASE: Final = re.compile(r"release (?P<version>\d+\.\d+), V(?P<release>\d+\.\d+\.\d+)")
_TOP: Final = re.compile(r"#\$ TOP=(?P<top>.+?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A complete toolkit in a folder, not fingerprinted yet."""

    root: Path
    version: CudaVersion
    release: str


class _UnusableError(Exception):
    """Why an origin has no toolkit for us, as a clause; another origin may have one."""


def obtain_toolkit(fact: ToolkitFact, choice: ToolkitChoice, workspace: Workspace) -> Toolkit:
    """Give the toolkit `fact` describes from the origins that `choice` and the matrix allow.

    AUTO takes the machine's own if it has the right version and is complete, else FETCHED: the registry's, else
    NVIDIA's archives. ToolError, with the reason of every origin asked, if none has it; SourceError if a file is not
    the pinned one.
    """
    reasons: list[str] = []
    hint = f"export CUDA_HOME=/path/to/cuda-{fact.version.cuda}"
    for origin in _ORIGINS[choice]:
        if len(_ORIGINS[choice]) > 1 and origin not in (ToolkitOrigin.SYSTEM, *fact.origins):
            continue
        try:
            if origin is ToolkitOrigin.SYSTEM:
                return _system_toolkit(fact, workspace)
            return _assembled_toolkit(fact, origin, workspace)
        except _UnusableError as reason:
            reasons.append(f"{origin}: {reason}")
        except ToolError as error:
            reasons += [f"{origin}: {error.sentence}", *(f"  {line}" for line in error.detail)]
            hint = error.hint or hint
    if ToolkitOrigin.IMAGE in fact.origins:
        reasons.append(f"image: {fact.image} is for engines that run containers")
    raise ToolError(f"there is no CUDA {fact.version} toolkit to compile with", detail=reasons, hint=hint)


def toolkits_at_hand(matrix: Matrix, choice: ToolkitChoice, workspace: Workspace) -> Mapping[ToolkitVersion, str]:
    """Say where each toolkit of the matrix would come from: "system FOLDER", "cached", "registry" or "redist".

    Ascending by version; a toolkit that no origin allowed by `choice` has is left out. Offline and quick: nothing is
    hashed.
    """
    try:
        system = _inspect_system(workspace) if ToolkitOrigin.SYSTEM in _ORIGINS[choice] else None
    except _UnusableError:
        system = None
    at_hand = {}
    for version, fact in matrix.toolkits.items():
        fetched = [origin for origin in _ORIGINS[choice] if origin_is_declared(fact, origin)]
        if system is not None and _is_it(system, fact):
            at_hand[version] = f"system {system.root}"
        elif any(is_assembled(fact, origin, workspace) for origin in fetched):
            at_hand[version] = "cached"
        elif fetched:
            at_hand[version] = fetched[0].value
    return at_hand


def _is_it(system: _Found, fact: ToolkitFact) -> bool:
    return ToolkitVersion.of(system.version) == fact.version and ToolkitOrigin.SYSTEM in fact.origins


def _system_toolkit(fact: ToolkitFact, workspace: Workspace) -> Toolkit:
    if ToolkitOrigin.SYSTEM not in fact.origins:
        raise _UnusableError(f"matrix.yaml does not allow this origin for CUDA {fact.version}")
    found = _inspect_system(workspace)
    if not _is_it(found, fact):
        raise _UnusableError(f"{found.root} is CUDA {found.version}")
    return _identified(found, fact.version, ToolkitOrigin.SYSTEM, workspace)


def _inspect_system(workspace: Workspace) -> _Found:
    nvcc = _system_nvcc(workspace.environ)
    # A wrapper script may stand where nvcc should: nvcc itself says where its toolkit is.
    lines = _ask([str(nvcc), "--dryrun", "-x", "cu", "-E", os.devnull], workspace)
    tops = [match["top"] for line in lines if (match := _TOP.fullmatch(line))]
    if not tops:
        raise _UnusableError(f"{nvcc} does not say where its toolkit is: {lines[-1] if lines else 'it prints nothing'}")
    return _inspect(Path(tops[0]).resolve(), workspace)


def _system_nvcc(environ: Mapping[str, str]) -> Path:
    """Find nvcc: CUDA_HOME decides if it is set, then CUDA_PATH, then PATH."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := environ.get(variable):
            nvcc = Path(home) / "bin" / "nvcc"
            if not os.access(nvcc, os.X_OK):
                raise _UnusableError(f"{variable} is {home}, which has no bin/nvcc")
            return nvcc
    found = shutil.which("nvcc", path=environ.get("PATH", os.defpath))
    if found is None:
        raise _UnusableError("CUDA_HOME and CUDA_PATH are not set, and nvcc is not on PATH")
    return Path(found)


def _inspect(root: Path, workspace: Workspace) -> _Found:
    """Check that a toolkit is complete and ask its nvcc for its version."""
    missing = [place for place in (*PARTS.values(), _RUNTIME_HEADER) if not (root / place).is_file()]
    if not any((root / place).is_file() for place in _CCCL_HEADERS):
        missing.append("the CCCL headers (include/cccl or include/cuda)")
    if missing:
        raise _UnusableError(f"{root} lacks {', '.join(missing)}")
    lines = _ask([str(root / PARTS["nvcc"]), "--version"], workspace)
    match = _RELEASE.search("\n".join(lines))
    if match is None:
        raise _UnusableError(f"{root / PARTS['nvcc']} --version names no release")
    return _Found(root=root, version=CudaVersion.parse(match["version"]), release=match["release"])


def _ask(argv: list[str], workspace: Workspace) -> list[str]:
    lines: list[str] = []
    try:
        done = run(argv, cwd=make_folder(workspace.cache), env=workspace.environ, on_line=lines.append)
    except ToolError as error:
        raise _UnusableError(error.sentence) from error
    if done.status != 0:
        last = lines[-1] if lines else "it prints nothing"
        raise _UnusableError(f"{argv[0]} ended with status {done.status}: {last}")
    return lines


def _assembled_toolkit(fact: ToolkitFact, origin: ToolkitOrigin, workspace: Workspace) -> Toolkit:
    if not origin_is_declared(fact, origin):
        raise _UnusableError(f"matrix.yaml names nothing to fetch for CUDA {fact.version}")
    root = assemble_toolkit(fact, origin, lambda root: toolkit_fingerprint(root, workspace), workspace)
    found = _inspect(root, workspace)
    if found.release != fact.release:
        raise _UnusableError(f"its nvcc is {found.release}, and matrix.yaml says {fact.release}")
    return _identified(found, fact.version, origin, workspace)


def _identified(found: _Found, version: ToolkitVersion, origin: ToolkitOrigin, workspace: Workspace) -> Toolkit:
    return Toolkit(
        version=version,
        release=found.release,
        origin=origin,
        root=found.root,
        fingerprint=toolkit_fingerprint(found.root, workspace),
    )


def toolkit_fingerprint(root: Path, workspace: Workspace) -> Mapping[str, str]:
    """Fingerprint the toolkit in a folder; OSError for a part that is missing."""
    parts = {name: root / place for name, place in PARTS.items()}
    trees = {"include": root / "include"}
    trees |= {f"include {target.parent.name}": target for target in other_headers(root)}
    return fingerprint(parts, trees, workspace.cache)


def other_headers(root: Path) -> list[Path]:
    """List the folders of headers nvcc reads besides include/; as a rule they are that one under another name."""
    include = (root / "include").resolve()
    return [target for target in sorted(root.glob("targets/*/include")) if target.resolve() != include]
