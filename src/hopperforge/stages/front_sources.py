"""What of a recipe's folder a front of its own is made of: which files count, and what is refused of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hopperforge.errors import InputError
from hopperforge.model.cell import Build
from hopperforge.model.front import Front
from hopperforge.run.files import sha256_file

COPIED: Final = ("include", "src", "exec", "kernels")
"""The recipe's folders that compiles see; includes are looked for in all but `exec`."""
SHARED: Final = ("include", "src")
"""The folders of a recipe that another shares; compiles see them in `shared`."""

SHARED_SOURCES: Final = "src/*.cpp"


def front_sources(build: Build) -> dict[str, str]:
    """Hash every file of the recipe that goes into the package or that a compile of the front may read, by its path.

    InputError for a file that is not there, a pattern that no file matches, and a source where no compile sees it.
    """
    folder, front = build.recipe.folder, build.recipe.front
    wanted = [path for name in (*COPIED, "python") for path in (folder / name).rglob("*")]
    wanted += [_present(folder, name) for name in ("README.md", front.exports)]
    wanted += [path for pattern in front.files for path in matching(folder, pattern)]
    for pattern in (*front.sources, *(one for patterns in front.programs.values() for one in patterns)):
        _refuse_unseen(folder, matching(folder, pattern))
    return _hashed(folder, wanted) | {f"shared/{path}": digest for path, digest in _shared(front).items()}


def python_sources(build: Build) -> dict[str, str]:
    """Hash every file that a package of Python alone is made of, by its path; InputError if there is no Python."""
    folder = build.recipe.folder
    matching(folder, "python/*/__init__.py")
    return _hashed(folder, [*(folder / "python").rglob("*"), _present(folder, "README.md")])


def _present(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(f"recipe {folder.name} has no file {name}", hint=f"look at {folder / 'recipe.yaml'}")
    return folder / name


def _refuse_unseen(folder: Path, sources: Iterable[Path]) -> None:
    for source in (path.relative_to(folder) for path in sources):
        if source.parts[0] not in COPIED:
            raise InputError(
                f"recipe {folder.name}: {source} is a source, and compiles see the folders {', '.join(COPIED)} alone"
            )


def _shared(front: Front) -> dict[str, str]:
    folder = front.shares
    if folder is None:
        return {}
    matching(folder, SHARED_SOURCES)
    return _hashed(folder, [path for name in SHARED for path in (folder / name).rglob("*")])


def _hashed(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    files = {path for path in paths if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(files)}


def matching(folder: Path, pattern: str) -> tuple[Path, ...]:
    """List the files of a recipe that a pattern of its front means; InputError if there are none."""
    found = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
    if not found:
        raise InputError(
            f"recipe {folder.name}: no file matches {pattern}", hint=f"look at `front:` in {folder / 'recipe.yaml'}"
        )
    return found
