"""What a front of a recipe's own ships: the members of its wheel, its metadata, and what is filled into files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from packaging.metadata import Metadata

from hopperforge.errors import InputError
from hopperforge.model.cell import Build
from hopperforge.model.front import Front
from hopperforge.model.wheel import RawWheel
from hopperforge.provenance.contents import EXPRESSION, PURE_EXPRESSION
from hopperforge.provenance.sbom import sbom_member
from hopperforge.stages.front_inputs import FrontInputs, build_facts, build_info, requirements
from hopperforge.stages.wheel_archive import WheelArchive, write_wheel

_TEMPLATE: Final = ".in"
_PLACEHOLDER: Final = re.compile(r"@([A-Z_]+)@")
_GENERATOR: Final = "hopperforge"


def placeholders(inputs: FrontInputs) -> dict[str, str]:
    """List what `@NAME@` stands for in the files that end in `.in`."""
    package, front = inputs.build.recipe.package, inputs.build.recipe.front
    facts = {name: str(value) for name, value in build_facts(inputs).items()}
    return facts | {
        "VERSION": package.version,
        "MAJOR": package.version.partition(".")[0],
        "FULL_VERSION": inputs.build.version,
        "SUMMARY": package.summary,
        "LIBRARY": front.library.rpartition("/")[2],
        "ARCHIVE": (front.archive or "").rpartition("/")[2],
        "SWITCHES": " ".join(sorted(inputs.build.profile.switches)),
    }


def package_files(inputs: FrontInputs, made: Mapping[str, Path]) -> tuple[dict[str, bytes], frozenset[str]]:
    """Gather what the package's folder holds, by wheel member, and which of it can be run.

    `made` are compiled files by their place. InputError for a placeholder that stands for nothing, or two files that
    want one place.
    """
    recipe = inputs.build.recipe
    folder, package = recipe.folder, recipe.package.package
    files: dict[str, bytes] = {}
    for name, data in (
        *python_files(folder / "python"),
        *((f"{package}/{place}", data) for place, data in _shipped(inputs)),
        *((f"{package}/{place}", path.read_bytes()) for place, path in made.items()),
        *((f"{package}/{place}", linker_script(recipe.front)) for place in linker_places(recipe.front)),
    ):
        if name in files:
            raise InputError(f"recipe {recipe.name} ships {name} twice", hint=f"look at {folder / 'recipe.yaml'}")
        files[name] = data
    if f"{package}/__init__.py" in files:
        files[f"{package}/_build.py"] = build_info(inputs).encode()
    return files, frozenset(f"{package}/{place}" for place in recipe.front.programs)


def linker_places(front: Front) -> tuple[str, ...]:
    """Give the place of what a linker looks for, libx.so beside libx.so.1; none where the library has no soname."""
    folder = front.library.rpartition("/")[0]
    return () if front.linker_name is None else (f"{folder}/{front.linker_name}".lstrip("/"),)


def linker_script(front: Front) -> bytes:
    """Lead a linker to the library; a wheel cannot hold the link that usually does."""
    return f"/* GNU ld script */\nINPUT(-l:{front.soname})\n".encode()


def python_files(folder: Path) -> list[tuple[str, bytes]]:
    """Give the Python that a recipe ships, by its place in the wheel."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]


def _shipped(inputs: FrontInputs) -> list[tuple[str, bytes]]:
    """Give the recipe's `files:` by their place; below what comes before a pattern's first star folders are kept."""
    recipe = inputs.build.recipe
    found = []
    for pattern, place in recipe.front.files.items():
        top = recipe.folder.joinpath(*_plain_parts(pattern))
        paths = sorted(path for path in recipe.folder.glob(pattern) if path.is_file())
        if not paths:
            raise InputError(f"recipe {recipe.name}: no file matches {pattern}")
        for path in paths:
            name, data = path.relative_to(top).as_posix(), path.read_bytes()
            if name.endswith(_TEMPLATE):
                name, data = name.removesuffix(_TEMPLATE), fill(data.decode(), placeholders(inputs), path).encode()
            found.append((f"{place}/{name}", data))
    return found


def _plain_parts(pattern: str) -> list[str]:
    """The folders of a pattern before its first part that is no name: include of include/**/*.h."""
    parts = pattern.split("/")[:-1]
    first = next((index for index, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return parts[:first]


def fill(text: str, values: Mapping[str, str], place: Path) -> str:
    """Fill in the placeholders of a template; InputError for one that has no value."""
    unknown = sorted(set(_PLACEHOLDER.findall(text)) - values.keys())
    if unknown:
        raise InputError(
            f"{place} has placeholders that stand for nothing: {', '.join(unknown)}", detail=sorted(values)
        )
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def raw_wheel(inputs: FrontInputs, content: tuple[Mapping[str, bytes], frozenset[str]], *, out: Path) -> RawWheel:
    """Write the wheel of these files to `out`, with metadata and licences, tagged for this build's platform."""
    path = write_package(inputs.build, content, licences=inputs.licences, epoch=inputs.source.pin.epoch, out=out)
    return RawWheel(path=path)


def write_package(
    build: Build,
    content: tuple[Mapping[str, bytes], frozenset[str]],
    *,
    licences: Mapping[str, bytes],
    epoch: int,
    out: Path,
    sbom: bytes | None = None,
) -> Path:
    """Write the wheel of these files, of which some can be run, to `out`; `sbom` is put in where there is one."""
    files, runnable = content
    name = build.recipe.package.distribution.replace("-", "_")
    info, tag = f"{name}-{build.version}.dist-info", f"{build.recipe.front.kind.tag}-{build.platform}"
    path = out / f"{name}-{build.version}-{tag}.whl"
    pure = "false" if build.recipe.front.kind.compiled else "true"
    wheel_file = f"Wheel-Version: 1.0\nGenerator: {_GENERATOR}\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    members = {
        **files,
        f"{info}/METADATA": _metadata(build, licences),
        f"{info}/WHEEL": wheel_file.encode(),
        **{f"{info}/licenses/{licence}": text for licence, text in licences.items()},
        **({} if sbom is None else {sbom_member(info, name): sbom}),
    }
    archive = WheelArchive(path=path, names=tuple(members), files=members, runnable=runnable, info=info)
    write_wheel(path, archive, epoch=epoch)
    return path


def _metadata(build: Build, licences: Mapping[str, bytes]) -> bytes:
    package = build.recipe.package
    metadata = Metadata.from_raw(
        {
            "metadata_version": "2.4",
            "name": package.distribution,
            "version": build.version,
            "summary": package.summary,
            "description": (build.recipe.folder / "README.md").read_text(encoding="utf-8"),
            "description_content_type": "text/markdown",
            "license_expression": EXPRESSION if build.recipe.front.kind.compiled else PURE_EXPRESSION,
            "license_files": list(licences),
            "requires_dist": list(requirements(build)),
            "requires_python": build.recipe.front.requires_python,
        }
    )
    head, end, text = metadata.as_rfc822().as_bytes().partition(b"\n\n")
    # packaging writes the fields' names small; installers do not mind, people and our gates read them as PEP 566 does
    return re.sub(rb"^[a-z-]+(?=:)", lambda name: name[0].title(), head, flags=re.MULTILINE) + end + text
