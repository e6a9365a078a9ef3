"""Verification: every gate looks at the repaired wheel, and only a wheel that passed them all goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hopperforge.errors import GateError
from hopperforge.model.cell import Build
from hopperforge.model.wheel import GateResult, RepairedWheel, Tarball, VerifiedWheel
from hopperforge.provenance.contents import Contents
from hopperforge.run.files import sha256_file, write_atomic
from hopperforge.run.workspace import Workspace
from hopperforge.stages import gates, gates_tools
from hopperforge.stages.device_code import compression_gate
from hopperforge.stages.gates_contents import licences_gate, sbom_gate
from hopperforge.stages.gates_front import archive_gate, programs_gate, python_free_gate, soname_gate
from hopperforge.stages.gates_python import install_gate, modules_gate, pure_gate
from hopperforge.stages.tarball import tarball_gate
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel


def verify(
    repaired: RepairedWheel,
    *,
    build: Build,
    driver: str,
    requires: Sequence[str],
    contents: Contents,
    workspace: Workspace,
    floor: str | None = None,
    host: str = "",
    folders: Mapping[str, Path] | None = None,
    proofs: Sequence[GateResult] = (),
    tarball: Tarball | None = None,
) -> VerifiedWheel:
    """Run all gates on a wheel; GateError lists each one that failed, and names a copy kept in <cache>/refused.

    `driver` is the oldest that must read the machine code, `requires` what Requires-Dist must say, `contents` what the
    bill of materials must, `floor` the newest platform tag allowed, `host` this machine's name and `folders` further
    places, by what they are, that must not show in the wheel. `proofs` are results of gates run elsewhere (imports)
    that count as well. `tarball` is judged with the wheel.
    """
    wheel = _with_library(read_wheel(repaired.path), build)
    private = private_texts(workspace, host) | {str(path): what for what, path in (folders or {}).items()}
    looked = _look(wheel, build, driver=driver, requires=tuple(requires), contents=contents, private=private)
    results = (*looked, *_of_front(wheel, build, tarball), *_ask(wheel, build, floor, workspace), *proofs)
    _settle(repaired, results, workspace)
    return VerifiedWheel(
        path=repaired.path,
        platform_tags=repaired.platform_tags,
        sha256=sha256_file(repaired.path),
        size=repaired.path.stat().st_size,
        library_size=len(wheel.files[gates.library_name(wheel)]),
        gates=results,
        tarball=tarball,
    )


def verify_python(
    repaired: RepairedWheel, *, build: Build, contents: Contents, workspace: Workspace, host: str
) -> VerifiedWheel:
    """Run the gates of Python alone on a wheel; errors and words are those of `verify`."""
    wheel, recipe = read_wheel(repaired.path), build.recipe
    package, requires, pythons = recipe.package.package, recipe.front.requires, recipe.front.requires_python
    results = (
        gates.metadata_gate(
            wheel,
            distribution=recipe.package.distribution,
            version=build.version,
            requires=requires,
            requires_python=pythons,
        ),
        gates.record_gate(wheel),
        sbom_gate(wheel, contents=contents),
        licences_gate(wheel, licences=contents.licences),
        pure_gate(wheel, package=package),
        modules_gate(wheel, package=package, requires=requires, requires_python=pythons),
        gates.paths_gate(wheel, private=private_texts(workspace, host), library=False),
        gates.size_gate(wheel, budget=build.profile.budget, library=False),
        install_gate(wheel, workspace=workspace),
    )
    _settle(repaired, results, workspace)
    return VerifiedWheel(
        path=repaired.path,
        platform_tags=repaired.platform_tags,
        sha256=sha256_file(repaired.path),
        size=repaired.path.stat().st_size,
        library_size=0,
        gates=results,
    )


def _settle(repaired: RepairedWheel, results: Sequence[GateResult], workspace: Workspace) -> None:
    """Report each result; keep the wheel and raise GateError where one failed."""
    for result in results:
        workspace.reporter.note(f"gate {result.name}: {'passed' if result.passed else 'FAILED'}: {result.detail}")
    failed = [result for result in results if not result.passed]
    if failed:
        kept = workspace.cache / "refused" / repaired.path.name
        write_atomic(kept, repaired.path.read_bytes())
        raise GateError(
            f"{repaired.path.name} failed {len(failed)} of {len(results)} gates: "
            + ", ".join(result.name for result in failed),
            detail=[*(f"{result.name}: {result.detail}" for result in failed), f"the wheel is kept: {kept}"],
            hint=f"python -m zipfile -e {kept} {kept.with_suffix('')}   # to look inside",
        )


def _with_library(wheel: WheelArchive, build: Build) -> WheelArchive:
    """Say which member is the library, where the recipe names it."""
    recipe = build.recipe
    return replace(wheel, library=f"{recipe.package.package}/{recipe.front.library}" if recipe.front.kind.own else "")


def private_texts(workspace: Workspace, host: str) -> dict[str, str]:
    """List what must not show in a package: our folders, the user's home, this machine's name."""
    named = [
        (str(workspace.cache), "cache folder"),
        (str(workspace.project), "project folder"),
        (workspace.environ.get("HOME", ""), "home folder"),
        (host, "host name"),
        ("/tmp/", "folder of temporary files"),  # noqa: S108 - looked for, never written to
    ]
    return {text: what for text, what in named if text}


def _look(
    wheel: WheelArchive,
    build: Build,
    *,
    driver: str,
    requires: tuple[str, ...],
    contents: Contents,
    private: Mapping[str, str],
) -> Sequence[GateResult]:
    distribution, front = build.recipe.package.distribution, build.recipe.front
    programs = frozenset(f"{build.recipe.package.package}/{place}" for place in front.programs)
    return (
        gates.metadata_gate(
            wheel,
            distribution=distribution,
            version=build.version,
            requires=requires,
            requires_python=front.requires_python,
        ),
        gates.record_gate(wheel),
        sbom_gate(wheel, contents=contents),
        licences_gate(wheel, licences=contents.licences),
        gates.bundled_gate(wheel, programs=programs),
        gates.needed_gate(wheel, needed=build.needed),
        gates.exports_gate(wheel, symbols=front.symbols),
        gates.runpath_gate(wheel),
        gates.paths_gate(wheel, private=private),
        gates.size_gate(wheel, budget=build.profile.budget),
        compression_gate(wheel, driver=driver),
    )


def _of_front(wheel: WheelArchive, build: Build, tarball: Tarball | None) -> Sequence[GateResult]:
    """Run the gates that only some kinds of front have."""
    front, package = build.recipe.front, build.recipe.package.package
    results = []
    if not front.kind.binds_torch:
        results.append(python_free_gate(wheel))
    if front.soname is not None:
        results.append(soname_gate(wheel, soname=front.soname))
    if front.archive is not None:
        results.append(archive_gate(wheel, place=f"{package}/{front.archive}", symbols=front.symbols))
    if front.programs:
        results.append(programs_gate(wheel, front=front, package=package))
    if tarball is not None:
        results.append(tarball_gate(wheel, tarball, package=package, front=front))
    return results


def _ask(wheel: WheelArchive, build: Build, floor: str | None, workspace: Workspace) -> Sequence[GateResult]:
    profile = build.profile
    abi3 = (gates_tools.abi3_gate(wheel, workspace=workspace),) if build.recipe.front.kind.binds_torch else ()
    return (
        gates_tools.platform_tag_gate(wheel, floor=floor, workspace=workspace),
        *abi3,
        gates_tools.architectures_gate(
            wheel, architectures=profile.architectures, ptx=profile.ptx, workspace=workspace
        ),
    )
