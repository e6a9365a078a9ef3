"""The image stage: Dockerfile.build over a base, with a toolkit and the Python tools handed in.

Everything that goes in is fetched and checked before; the build itself has no network. Equal inputs have an equal id
and are built once per engine.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.image import Base, DebianBase, Image, ImageFacts, RegistryBase, image_id, tool_versions
from hopperforge.model.keys import JsonValue, canonical_json
from hopperforge.model.toolkit import HostCompiler, Toolkit
from hopperforge.run.download import fetch_all
from hopperforge.run.engine import Client, Command, ContainerEngine, Engine
from hopperforge.run.files import Lock, make_folder, sha256_file, temporary_folder, write_atomic
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace
from hopperforge.stages.base import find_base, obtain_base
from hopperforge.stages.fingerprint import fingerprint
from hopperforge.stages.host_compiler import find_archivers, find_host_compiler
from hopperforge.stages.toolkit import PARTS

DOCKERFILE: Final = "Dockerfile.build"
SCRIPTS: Final = "image"
CUDA_HOME: Final = Path("/opt/cuda")
"""Where images have their toolkit."""

_NOT_SCRIPTS: Final = frozenset({".yaml", ".json", ".pyc"})
_LABEL: Final = "hopperforge.image"


def obtain_image(
    facts: ImageFacts, base: DebianBase | RegistryBase, toolkit: Toolkit, client: Client, workspace: Workspace
) -> Image:
    """Give the image for `toolkit` on `base`, built if the engine does not have it.

    ToolError if base or image cannot be made, with the log of the build; SourceError if something is not the pinned
    one.
    """
    stands_on = obtain_base(base, client, workspace)
    key = _key(facts, stands_on, toolkit, workspace)
    tag = _tag(key)
    wait = partial(workspace.reporter.note, f"waiting for another run that builds {tag}")
    with Lock(workspace.cache / "images" / f"{key}.lock", on_wait=wait):
        found = _find(client, tag, key)
        if found is None:
            with _context(facts, toolkit, workspace) as context:
                _build(client, context, base=stands_on, key=key, workspace=workspace)
            found = _find(client, tag, key)
        if found is None:
            raise ToolError(f"{client.program} built {tag} and has it no more", hint="nox -s doctor -- engine")
    return Image(id=key, base=stands_on, reference=found, tools=tool_versions(facts.tools))


def find_image(
    facts: ImageFacts, base: DebianBase | RegistryBase, toolkit: Toolkit, client: Client, workspace: Workspace
) -> Image | None:
    """Give the image for `toolkit` on `base` if the engine has it; makes nothing."""
    stands_on = find_base(base, client, workspace)
    if stands_on is None:
        return None
    key = _key(facts, stands_on, toolkit, workspace)
    found = _find(client, _tag(key), key)
    if found is None:
        return None
    return Image(id=key, base=stands_on, reference=found, tools=tool_versions(facts.tools))


def _key(facts: ImageFacts, base: Base, toolkit: Toolkit, workspace: Workspace) -> str:
    files = {path.relative_to(workspace.project).as_posix(): sha256_file(path) for path in _own_files(workspace)}
    content = fingerprint({}, {"toolkit": toolkit.root}, workspace.cache)["toolkit"]
    return image_id(base=base, files=files, toolkit=content, tools=facts.tools)


def _tag(key: str) -> str:
    return f"hopperforge-build:{key[:16]}"


def _own_files(workspace: Workspace) -> list[Path]:
    scripts = (path for path in (workspace.project / SCRIPTS).rglob("*") if path.suffix not in _NOT_SCRIPTS)
    return [workspace.project / DOCKERFILE, *sorted(path for path in scripts if path.is_file())]


def _find(client: Client, tag: str, key: str) -> str | None:
    """Give the engine's own id of the image, by which containers are started: a tag can be moved, an id cannot."""
    inspected = client.inspect(tag)
    config = inspected.get("Config") if inspected else None
    labels = config.get("Labels") if isinstance(config, dict) else None
    if inspected is None or not isinstance(labels, dict) or labels.get(_LABEL) != key:
        return None
    return str(inspected["Id"])


@contextlib.contextmanager
def _context(facts: ImageFacts, toolkit: Toolkit, workspace: Workspace) -> Iterator[Path]:
    """Lay out the build context: toolkit/, wheels/ and scripts/."""
    wheels = fetch_all(facts.tools, workspace)
    with temporary_folder(make_folder(workspace.work), "context") as folder:
        _link_tree(toolkit.root, folder / "toolkit")
        (folder / "wheels").mkdir()
        for wheel in wheels:
            shutil.copyfile(wheel, folder / "wheels" / wheel.name)
        for path in _own_files(workspace)[1:]:
            target = folder / "scripts" / path.relative_to(workspace.project / SCRIPTS)
            make_folder(target.parent)
            shutil.copy(path, target)
        write_atomic(folder / "scripts" / "toolkit.sha256", _checks(toolkit.fingerprint).encode())
        yield folder


def _link_tree(source: Path, target: Path) -> None:
    """Copy a tree by hard links where the file system can, with its own links as they are."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other, follow_symlinks=False)
        except OSError:
            shutil.copy2(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=link)


def _checks(known: Mapping[str, str]) -> str:
    """Write the toolkit's parts for `sha256sum --check`."""
    return "".join(f"{known[name]}  {place}\n" for name, place in PARTS.items() if name in known)


def _build(client: Client, context: Path, *, base: Base, key: str, workspace: Workspace) -> None:
    tag = _tag(key)
    make_folder(workspace.logs)
    log = workspace.logs / f"image-{key[:16]}.log"
    workspace.reporter.note(f"building {tag} on base {base.name} with {client.program}; log: {log}")
    done = run(
        [
            *(client.program, "build", "--network=none", "--force-rm"),
            *(f"--build-arg=BASE={base.tag}", f"--build-arg=SEARCH={base.search}"),
            *(f"--label={_LABEL}={key}", f"--tag={tag}", f"--file={workspace.project / DOCKERFILE}", context),
        ],
        cwd=context,
        env=client.environ,
        log=log,
        on_line=lambda line: workspace.reporter.output("image", line),
    )
    if done.status != 0:
        raise ToolError(
            f"{client.program} could not build the image on base {base.name} (status {done.status})",
            detail=[*done.tail, f"log: {log}"],
            hint="nox -s doctor -- engine",
        )


def image_toolkit(toolkit: Toolkit) -> Toolkit:
    """Give the toolkit as commands in the image find it; the image's own test checked that it is the same."""
    return replace(toolkit, root=CUDA_HOME)


def image_compiler(image: Image, gcc_max: int, engine: ContainerEngine, workspace: Workspace) -> HostCompiler:
    """Give the image's g++, asked in a container once and then remembered; see `find_host_compiler`."""
    known = workspace.cache / "images" / f"{image.id}.json"
    if not known.is_file():
        found = find_host_compiler({}, gcc_max, machine=ContainerShell(engine))
        facts: JsonValue = {
            "path": str(found.path),
            "version": found.version,
            "fingerprint": dict(found.fingerprint),
        }
        write_atomic(known, canonical_json(facts))
    fields = json.loads(known.read_bytes())
    return HostCompiler(path=Path(fields["path"]), version=fields["version"], fingerprint=fields["fingerprint"])


def image_archivers(image: Image, engine: Engine, workspace: Workspace) -> dict[str, str]:
    """Give the versions of what makes static libraries in the image, asked once as `image_compiler` does."""
    known = workspace.cache / "images" / f"{image.id}-archivers.json"
    if not known.is_file():
        versions: JsonValue = dict(find_archivers(ContainerShell(engine)))
        write_atomic(known, canonical_json(versions))
    found: dict[str, str] = json.loads(known.read_bytes())
    return found


class ContainerShell:
    """Looks at the inside of an image: what `find_host_compiler` and `find_archivers` want of a machine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, program: str) -> Path | None:
        """Find a program on the image's PATH."""
        status, lines = self.ask(["/bin/sh", "-c", 'command -v "$1"', "sh", program])
        return Path(lines[0]) if status == 0 and lines else None

    def sha256(self, path: Path) -> str:
        """Hash a file."""
        status, lines = self.ask(["/usr/bin/sha256sum", str(path)])
        if status != 0:
            raise ToolError(f"{path} of the image cannot be read", detail=lines)
        return lines[0].split()[0].lstrip("\\")

    def ask(self, argv: Sequence[str | Path]) -> tuple[int, list[str]]:
        """Run a command; give its status and what it printed."""
        lines: list[str] = []
        words = tuple(str(word) for word in argv)
        command = Command(
            name=f"ask-{os.getpid()}", argv=words, cwd=Path("/"), env={"LC_ALL": "C"}, mounts=(), memory=None
        )
        done = self._engine.run(command, on_line=lines.append)
        return done.status, lines[: len(lines) - 1]
