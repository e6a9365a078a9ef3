"""Programs of a node, run here: the Python that has torch and the package is not ours, and has nothing of ours."""

from collections.abc import Mapping, Sequence

from hopperforge.errors import HopperforgeError, ToolError
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.process import run
from hopperforge.verbs import Call
from hopperforge.verbs_packages import find_interpreter


def run_program(
    call: Call,
    name: str,
    program: bytes,
    words: Sequence[str],
    *,
    interpreter: str,
    ends: Mapping[type[HopperforgeError], str],
) -> None:
    """Run a program in the Python that `interpreter` names, and pass its lines and --json on.

    An exit code of one of `ends` is raised as that error with its sentence; ToolError for any other but 0.
    """
    python = find_interpreter(interpreter, call.workspace.environ)
    with temporary_folder(make_folder(call.workspace.work), "node") as folder:
        file = folder / "program"
        file.write_bytes(program)
        ended = run(
            (python, file, *words, *(["--json"] if call.as_json else [])),
            cwd=call.workspace.project,
            env=call.workspace.environ,
            on_line=call.answer,
        )
    for kind, sentence in ends.items():
        if ended.status == kind.exit_code:
            raise kind(sentence)
    if ended.status != 0:
        raise ToolError(f"{python} cannot run {name}", detail=ended.tail[-5:], hint="interpreter=/path/to/python3")
