"""What no single value shows: whether names refer to something, and whether values of a file agree.

Every check reads the tree and passes over what is missing or of the wrong type, which `shape` reports; so a file
with one mistake still has all others found.
"""

from collections.abc import Collection, Iterator
from typing import Final

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from hopperforge.config.problems import Problem, instead
from hopperforge.config.tree import Tree
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import CudaVersion

NVCC_PROJECTS: Final = frozenset({"nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12"})
# From 13.3 on its wheels are numbered by CCCL's own release: 13.3.3.4.1 came with CUDA 13.3, 13.3.4.3.1 with 13.4.
CCCL_PROJECT: Final = "nvidia-cuda-cccl"

_ORIGINS: Final = frozenset(ToolkitOrigin)

Found = Iterator[tuple[Tree, str]]


def check_matrix(file: str, tree: Tree) -> list[Problem]:
    """Problems of matrix.yaml beyond its shape."""
    found = [*repeated(tree), *_toolkits(tree), *_torches(tree), *_jax(tree), *_points(tree)]
    return [Problem(file, place.line, place.column, message) for place, message in found]


def check_upstream(file: str, tree: Tree) -> list[Problem]:
    """Problems of upstream.yaml beyond its shape."""
    found = [*repeated(tree), *_origins(tree)]
    return [Problem(file, place.line, place.column, message) for place, message in found]


def check_bases(file: str, tree: Tree) -> list[Problem]:
    """Problems of bases.yaml beyond its shape."""
    found = [*repeated(tree), *_default_base(tree)]
    for tool in tree.elements("tools"):
        found += _file_name(tool)
    return [Problem(file, place.line, place.column, message) for place, message in found]


def _default_base(tree: Tree) -> Found:
    yield from refers(tree.get("default"), [name for name, _ in tree.items("bases")], "base", "the bases are")


def repeated(tree: Tree) -> Found:
    """Strings that stand twice in one list, wherever it is."""
    seen: set[str] = set()
    for text, element in tree.strings():
        if text in seen:
            yield element, f'"{text}" is listed twice'
        seen.add(text)
    for below in (*tree.elements(), *(value for _, value in tree.items())):
        yield from repeated(below)


def _toolkits(tree: Tree) -> Found:
    for version, toolkit in tree.items("toolkits"):
        yield from _of_line(toolkit.get("release"), version)
        yield from _toolkit_origins(toolkit)
        for wheel in toolkit.elements("wheels"):
            yield from _toolkit_wheel(wheel, version, toolkit.string("release"))
        for assembler, wheel in toolkit.items("ptxas"):
            yield from _assembler(wheel, version, assembler)


def _toolkit_origins(toolkit: Tree) -> Found:
    """An origin and what is fetched for it go together."""
    origins = toolkit.get("origins")
    names = {text for text, _ in toolkit.strings("origins")}
    if origins is None or not names <= _ORIGINS:
        return
    if ("registry" in names) != any(toolkit.elements("wheels")):
        yield origins, 'the origin "registry" and the list "wheels" go together'
    for key in ("redist", "image"):
        place = toolkit.get(key)
        if (key in names) != (place is not None and place.value is not None):
            yield origins, f'the origin "{key}" and the key "{key}" go together'
    if any(toolkit.elements("debian")) and "registry" not in names:
        yield origins, 'the list "debian" needs the origin "registry"'
    if any(toolkit.items("ptxas")) and not names & {"registry", "redist"}:
        yield origins, 'another ptxas needs the origin "registry" or "redist": only there the toolkit is ours to change'


def _toolkit_wheel(wheel: Tree, version: str, release: str | None) -> Found:
    yield from _file_name(wheel)
    found, project = _wheel_version(wheel), wheel.string("project")
    place = wheel.get("filename")
    if found is None or place is None or project == CCCL_PROJECT:
        return
    if not f"{found}.".startswith(f"{version}."):
        yield place, f"this is {found}; every wheel of toolkit {version} is of that minor version"
    elif project in NVCC_PROJECTS and release not in (None, found):
        yield place, f"this is nvcc {found}, but release says {release}"


def _assembler(wheel: Tree, version: str, assembler: str) -> Found:
    """A newer ptxas is newer, and comes in a wheel of its release."""
    yield from _file_name(wheel)
    found, place = _wheel_version(wheel), wheel.get("filename")
    try:
        newer = CudaVersion.parse(assembler) > CudaVersion.parse(version)
    except ValueError:  # `shape` reports the key that is no version
        return
    if not newer:
        yield wheel, f"ptxas {assembler} is not newer than that of toolkit {version}"
    elif place is not None and found is not None and not f"{found}.".startswith(f"{assembler}."):
        yield place, f"this is {found}, which has no ptxas {assembler}"


def _torches(tree: Tree) -> Found:
    pythons = {text for text, _ in tree.strings("pythons")}
    for version, torch in tree.items("torch"):
        release = torch.get("release")
        yield from _of_line(release, version)
        yield from _torch_wheel(torch)
        index, cudas = torch.get("index_cuda"), {text for text, _ in torch.strings("cuda")}
        if cudas and index is not None and isinstance(index.value, str) and index.value not in cudas:
            yield index, f"{index.value} is missing from the list cuda of torch {version}"
        for text, place in torch.strings("pythons"):
            if pythons and text not in pythons:
                yield place, f"python {text} is missing from the matrix's own list pythons"
    yield from _stable_floor(tree)


def _torch_wheel(torch: Tree) -> Found:
    wheel = torch.get("wheel")
    if wheel is None:
        return
    yield from _file_name(wheel)
    found, release, place = _wheel_version(wheel), torch.string("release"), wheel.get("filename")
    if place is not None and found is not None and release not in (None, found):
        yield place, f"this is {found}, but release says {release}"


def _jax(tree: Tree) -> Found:
    jax = tree.get("jax")
    if jax is not None:
        yield from _torch_wheel(jax)


def _stable_floor(tree: Tree) -> Found:
    floor = tree.get("stable_floor")
    if floor is None or not isinstance(floor.value, str):
        return
    lines = dict(tree.items("torch"))
    if lines and floor.value not in lines:
        yield floor, f"torch {floor.value} is not in the matrix; it has {', '.join(lines)}"
    elif floor.value in lines and not any(lines[floor.value].items("wheel")):
        yield floor, f'torch {floor.value} needs the key "wheel": the stable front binds against it'


def _points(tree: Tree) -> Found:
    """Exclusions and cells of CI name what the matrix has."""
    known = {
        "cuda": ("CUDA", list(_toolkit_names(tree))),
        "torch": ("torch", [key for key, _ in tree.items("torch")]),
        "python": ("python", [text for text, _ in tree.strings("pythons")]),
    }
    yield from refers(tree.get("default_toolkit"), known["cuda"][1], "toolkit", "the toolkits are")
    for exclusion in tree.elements("exclusions"):
        if not any(key in known and place.value is not None for key, place in exclusion.items()):
            yield exclusion, "an exclusion names a cuda, a torch or a python"
    for point in (*tree.elements("exclusions"), *tree.elements("ci")):
        for key, (name, versions) in known.items():
            place = point.get(key)
            if place is not None and isinstance(place.value, str) and versions and place.value not in versions:
                yield place, f"{name} {place.value} is not in the matrix; it has {', '.join(versions)}"


def _toolkit_names(tree: Tree) -> Iterator[str]:
    for version, toolkit in tree.items("toolkits"):
        yield version
        yield from (f"{version}+ptxas{assembler}" for assembler, _ in toolkit.items("ptxas"))


def _origins(tree: Tree) -> Found:
    for _, pin in tree.items("pins"):
        for origin in pin.elements("origins"):
            if origin.string("kind") == "sdist":
                yield from _file_name(origin)
        for licence in pin.elements("licences"):
            archive = licence.get("archive")
            if archive is not None:
                yield from _file_name(archive)


def refers(place: Tree | None, known: Collection[str], noun: str, plural: str) -> Found:
    """A name that is none of those `known`, if any are."""
    if place is not None and isinstance(place.value, str) and known and place.value not in known:
        yield place, f'unknown {noun} "{place.value}"{instead(place.value, known, plural)}'


def _of_line(place: Tree | None, version: str) -> Found:
    text = None if place is None else place.string()
    if place is not None and text is not None and version.count(".") == 1 and not text.startswith(f"{version}."):
        yield place, f"{text} is not a release of {version}"


def _file_name(file: Tree) -> Found:
    """A file's name is well formed and begins with the name of its project."""
    project, filename, place = file.string("project"), file.string("filename"), file.get("filename")
    if filename is None or place is None or not filename.endswith((".whl", ".tar.gz")):
        return
    try:
        parsed = parse_wheel_filename(filename) if filename.endswith(".whl") else parse_sdist_filename(filename)
    except (InvalidSdistFilename, InvalidWheelFilename):
        yield place, f'"{filename}" is no file name of a project and a version'
        return
    if project is not None and parsed[0] != canonicalize_name(project):
        yield place, f"this is a file of the project {parsed[0]}, not of {project}"


def _wheel_version(wheel: Tree) -> str | None:
    try:
        return str(parse_wheel_filename(wheel.string("filename") or "")[1])
    except InvalidWheelFilename:
        return None
