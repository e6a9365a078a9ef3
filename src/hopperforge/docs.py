"""Text in documents that is generated from code and facts: `python -m hopperforge.docs FILE ...` renews it.

A clone has no wheelhouse, so the README's support table says what the facts declare and what CI proves, nothing of what
any machine has built: that is `nox -s matrix`.
"""

import re
import sys
from itertools import groupby
from pathlib import Path

from hopperforge import errors
from hopperforge.config.project import Project, load_project
from hopperforge.model.cell import AbiClass
from hopperforge.model.recipe import Recipe
from hopperforge.model.versions import TorchVersion
from hopperforge.pairing import abi_class, reason_of_facts
from hopperforge.planning import DEFAULT_RECIPE
from hopperforge.run.files import write_atomic
from hopperforge.support import runs

_EXIT_CODES = re.compile(r"(<!-- exit codes: .*? -->\n).*?(<!-- end of exit codes -->)", re.DOTALL)
_SUPPORT = re.compile(r"(<!-- support: .*? -->\n).*?(<!-- end of support -->)", re.DOTALL)


def exit_codes() -> dict[int, str]:
    """Map every exit code to its meaning."""
    codes = {0: "done", errors.BUG_EXIT_CODE: "a bug of hopperforge", errors.INTERRUPTED_EXIT_CODE: "interrupted"}
    codes |= {error.exit_code: error.meaning for error in errors.HopperforgeError.__subclasses__()}
    return dict(sorted(codes.items()))


def support_table(project: Project) -> str:
    """Write the support table of the default recipe: torch lines that differ in nothing else share a row."""
    recipe = project.recipes[DEFAULT_RECIPE]
    rows = [(torch, _support_row(torch, project, recipe)) for torch in project.matrix.torches]
    lines = ["| torch | Python | wheel | CUDA toolkits | CI builds and imports |", "|---|---|---|---|---|"]
    for cells, group in groupby(rows, key=lambda row: row[1]):
        lines.append(f"| {' | '.join((runs([torch for torch, _ in group], project.matrix.torches), *cells))} |")
    declared = [f"`{name}`: {reason}" for name, reason in project.matrix.platforms.items() if reason is not None]
    lines += [f"\nDeclared, never built: {'; '.join(declared)}."] if declared else []
    return "\n".join(lines) + "\n"


def _support_row(torch: TorchVersion, project: Project, recipe: Recipe) -> tuple[str, ...]:
    matrix = project.matrix
    pythons = matrix.torches[torch].pythons
    plain = [toolkit for toolkit in matrix.toolkits if toolkit.ptxas == toolkit.cuda]
    served = [
        toolkit
        for toolkit in plain
        if not all(reason_of_facts(toolkit, torch, python, matrix, recipe) for python in pythons)
    ]
    wheel = "the one wheel" if abi_class(matrix, torch) is AbiClass.STABLE else "one for each torch"
    proven = [f"`cuda={cell.cuda} torch={torch}` ({cell.engine})" for cell in matrix.ci if cell.torch == torch]
    return runs(pythons, matrix.pythons), wheel, runs(served, plain) or "none", ", ".join(proven)


def renew(text: str, project: Project) -> str:
    """Put the present exit codes and support table between their marks."""
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes().items())
    table = f"| code | meaning |\n|---|---|\n{rows}"
    text = _EXIT_CODES.sub(lambda match: match[1] + table + match[2], text)
    return _SUPPORT.sub(lambda match: match[1] + support_table(project) + match[2], text)


def main(paths: list[str]) -> None:
    """Renew the files named, by the facts of the checkout we are in."""
    project = load_project(Path.cwd())
    for path in map(Path, paths):
        write_atomic(path, renew(path.read_text(encoding="utf-8"), project).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
