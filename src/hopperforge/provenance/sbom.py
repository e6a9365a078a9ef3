"""The bill of materials inside a wheel: CycloneDX, where PEP 770 puts it, the same bytes for the same contents.

https://peps.python.org/pep-0770/ and https://cyclonedx.org/docs/1.6/json/. What went into the package is in it with
hashes: what is shipped has the scope `required`, what only worked on it `excluded`. A hash that is not of one file
(a git tree, a folder, an image) is a property, for the format's hashes are those of files.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import (
    Commit,
    Component,
    ComponentScope,
    ComponentType,
    Diff,
    Patch,
    PatchClassification,
    Pedigree,
)
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL

from hopperforge.provenance.contents import CUTLASS, Contents

HASH_PROPERTY: Final = "hopperforge:hash"
SUFFIX: Final = ".cdx.json"

_UPSTREAM: Final = "https://github.com/Dao-AILab/flash-attention"
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/serial-number/hopperforge")
_BSD: Final = DisjunctiveLicense(id="BSD-3-Clause")
_NVIDIA: Final = DisjunctiveLicense(name="NVIDIA CUDA Toolkit End User License Agreement")


def sbom_member(info: str, name: str) -> str:
    """Where a wheel has its bill of materials; `info` is the .dist-info folder."""
    return f"{info}/sboms/{name}{SUFFIX}"


def make_sbom(contents: Contents) -> bytes:
    """Write the bill of materials; equal contents give equal bytes, and its serial number follows from the rest."""
    plain = _written(contents, uuid.UUID(int=0))
    return _written(contents, uuid.uuid5(_NAMESPACE, hashlib.sha256(plain).hexdigest()))


def _written(contents: Contents, serial: uuid.UUID) -> bytes:
    root = _root(contents)
    shipped, used = list(_shipped(contents)), list(_used(contents))
    bom = Bom(
        serial_number=serial,
        metadata=BomMetaData(timestamp=datetime.fromtimestamp(contents.source.epoch, UTC), component=root),
        components=[*shipped, *used],
    )
    bom.register_dependency(root, shipped)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"


def _root(contents: Contents) -> Component:
    return Component(
        name=contents.name,
        version=contents.version,
        type=ComponentType.LIBRARY,
        bom_ref="package",
        purl=PackageURL("pypi", None, contents.name, contents.version),
        licenses=[LicenseExpression(contents.expression)],
        components=[_file(f"licence/{name}", name, digest) for name, digest in contents.licences.items()],
    )


def _shipped(contents: Contents) -> Iterable[Component]:
    """What is in the package, or in the process with it."""
    yield from _kernels(contents)
    yield from _bound(contents)


def _kernels(contents: Contents) -> Iterable[Component]:
    """The kernels and what is compiled into them; nothing of Python alone."""
    if not contents.front.kind.compiled:
        return
    source, runtime = contents.source, contents.static_runtime
    yield (
        _own_kernels(contents)
        if not source.commit
        else Component(
            name="flash-attention",
            version=source.pin,
            type=ComponentType.LIBRARY,
            bom_ref="source",
            scope=ComponentScope.REQUIRED,
            purl=PackageURL("github", "dao-ailab", "flash-attention", source.commit),
            licenses=[_BSD],
            pedigree=Pedigree(
                commits=[Commit(uid=source.commit, url=XsUri(f"{_UPSTREAM}/commit/{source.commit}"))],
                patches=[
                    Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=XsUri(f"patches/{source.pin}/{name}")))
                    for name in source.patches
                ],
            ),
            components=[
                *(_tree(f"source/{path}", path, digest) for path, digest in source.trees.items() if path != CUTLASS),
                *(_file(f"patch/{name}", name, digest) for name, digest in source.patches.items()),
            ],
        )
    )
    if CUTLASS in source.trees:
        yield Component(
            name="cutlass",
            type=ComponentType.LIBRARY,
            bom_ref="cutlass",
            scope=ComponentScope.REQUIRED,
            description="the headers of CUTLASS and CuTe, as flash-attention's submodule has them",
            licenses=[_BSD],
            components=[_tree(f"source/{CUTLASS}", CUTLASS, source.trees[CUTLASS])],
        )
    if runtime is not None and contents.toolkit is not None:
        yield Component(
            name="cuda-runtime",
            version=contents.toolkit.release,
            type=ComponentType.LIBRARY,
            bom_ref="cuda-runtime",
            scope=ComponentScope.REQUIRED,
            description="libcudart_static.a, linked in",
            licenses=[_NVIDIA],
            hashes=[_sha256(runtime)],
        )


def _bound(contents: Contents) -> Iterable[Component]:
    """The recipe's own sources and the framework."""
    if contents.front.sources:
        yield Component(
            name="front",
            version=contents.version,
            type=ComponentType.LIBRARY,
            bom_ref="front",
            scope=ComponentScope.REQUIRED,
            description="the recipe's own sources"
            + (", bound to the kernels" if contents.front.kind.compiled else ", Python alone"),
            licenses=[_BSD],
            components=[_file(f"front/{path}", path, digest) for path, digest in contents.front.sources.items()],
        )
    framework = contents.front.framework
    if framework is not None:
        yield Component(
            name=framework.name,
            version=framework.release,
            type=ComponentType.LIBRARY,
            bom_ref=framework.name,
            scope=ComponentScope.REQUIRED,
            description="bound against its headers; not packed in",
            purl=PackageURL("pypi", None, framework.name, framework.release),
            hashes=[_sha256(framework.wheel_sha256)],
        )


def _own_kernels(contents: Contents) -> Component:
    """The kernels of a recipe that brings them itself."""
    return Component(
        name=contents.source.pin,
        version=contents.version,
        type=ComponentType.LIBRARY,
        bom_ref="source",
        scope=ComponentScope.REQUIRED,
        licenses=[_BSD],
        components=[_tree(f"source/{path}", path, digest) for path, digest in contents.source.trees.items()],
    )


def _used(contents: Contents) -> Iterable[Component]:
    """What worked on the package and is not in it."""
    toolkit, compiler, image = contents.toolkit, contents.host_compiler, contents.image
    if toolkit is not None:
        named = f"{toolkit.version} (nvcc {toolkit.release})"
        yield _tool("toolkit", "cuda-toolkit", named, toolkit.fingerprint, licence=_NVIDIA)
    if compiler is not None:
        yield _tool("host-compiler", "g++", compiler.version, compiler.fingerprint)
    for name, version in sorted(contents.front.tools.items()):
        yield _tool(f"tool/{name}", name, version, {})
    if image is not None:
        yield Component(
            name="builder-image",
            version=image.id,
            type=ComponentType.CONTAINER,
            bom_ref="image",
            scope=ComponentScope.EXCLUDED,
            properties=[Property(name=HASH_PROPERTY, value=image.id)],
            components=[_tree("image/base", image.base, image.base_id, type=ComponentType.CONTAINER)],
        )


def _tool(
    ref: str, name: str, version: str, parts: Mapping[str, str], licence: DisjunctiveLicense | None = None
) -> Component:
    """Make a program and its parts; a part whose name begins with "include" is a folder of headers."""
    return Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=ref,
        scope=ComponentScope.EXCLUDED,
        licenses=[licence] if licence else None,
        components=[
            (_tree if part.startswith("include") else _file)(f"{ref}/{part}", part, digest)
            for part, digest in parts.items()
        ],
    )


def _file(ref: str, name: str, digest: str) -> Component:
    return Component(name=name, type=ComponentType.FILE, bom_ref=ref, hashes=[_sha256(digest)])


def _tree(ref: str, name: str, digest: str, type: ComponentType = ComponentType.FILE) -> Component:  # noqa: A002
    return Component(name=name, type=type, bom_ref=ref, properties=[Property(name=HASH_PROPERTY, value=digest)])


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def sbom_problems(data: bytes, contents: Contents) -> list[str]:
    """List what is wrong with a bill of materials: not valid, of another package, or of other contents."""
    try:
        text = data.decode()  # before JSON guesses an encoding, which the validator would not
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [f"it is no JSON: {error}"]
    # its formats are grammars that are compiled when imported, two seconds that only a finished wheel is worth
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    try:
        invalid = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except RecursionError:
        return ["it is not valid CycloneDX: its components lie too deep in each other"]
    if invalid is not None:
        return [f"it is not valid CycloneDX: {_reason(invalid)}"]
    return [*_misnamed(document, contents), *_unequal(_stated(document), contents.hashes())]


def _reason(invalid: object) -> str:
    return str(getattr(getattr(invalid, "data", invalid), "message", invalid))[:200]


def _misnamed(document: Mapping[str, Any], contents: Contents) -> Iterable[str]:
    root = document.get("metadata", {}).get("component", {})
    expected = {"name": contents.name, "version": contents.version}
    commits = [c.get("uid") for part in document.get("components", ()) for c in _commits(part)]
    for field, value in expected.items():
        if root.get(field) != value:
            yield f"{field} is {root.get(field)}, expected {value}"
    if commits != ([contents.source.commit] if contents.source.commit else []):
        yield f"the commits are {commits}, expected {contents.source.commit}"


def _commits(component: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    found: Iterable[Mapping[str, Any]] = component.get("pedigree", {}).get("commits", ())
    return found


def _stated(document: Mapping[str, Any]) -> dict[str, str]:
    """Every hash a bill states, by the reference of its component."""
    waiting = [*document.get("components", ()), document.get("metadata", {}).get("component", {})]
    found = {}
    while waiting:
        component = waiting.pop()
        waiting += component.get("components", ())
        hashes = [entry["content"] for entry in component.get("hashes", ())]
        hashes += [p.get("value") for p in component.get("properties", ()) if p["name"] == HASH_PROPERTY]
        if hashes:
            found[component.get("bom-ref", "")] = " ".join(map(str, hashes))
    return found


def _unequal(stated: Mapping[str, str], expected: Mapping[str, str]) -> Iterable[str]:
    for ref in sorted(stated.keys() | expected.keys()):
        if stated.get(ref) != expected.get(ref):
            yield f"{ref} is {stated.get(ref, 'not listed')}, expected {expected.get(ref, 'not to be listed')}"
