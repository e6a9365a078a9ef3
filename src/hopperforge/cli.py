"""The command line: words to verbs. The only place that reads environment and clock, prints errors, and exits."""

import argparse
import contextlib
import importlib
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import platformdirs

from hopperforge import __version__, verbs
from hopperforge.console import standard_reporter
from hopperforge.errors import INTERRUPTED_EXIT_CODE, HopperforgeError, InputError
from hopperforge.model.place import StorePlace
from hopperforge.model.versions import PythonVersion
from hopperforge.run.workspace import Workspace

VERBS: Final[dict[str, tuple[str, str]]] = {
    "plan": ("verbs", "show what would be built, and why"),
    "matrix": ("verbs", "show the support table: what was built, proven, and can be built here"),
    "fetch": ("verbs", "fetch and verify the pinned upstream source"),
    "patch": ("verbs", "apply the patch series and list a profile's units"),
    "build": ("verbs", "build packages into the wheelhouse"),
    "image": ("verbs", "make the builder image of a toolkit: cuda=13.0 engine=docker"),
    "doctor": ("verbs_doctor", "say what this machine lacks: engine, or node index=URL"),
    "verify": (
        "verbs_packages",
        "import a wheel beside a real torch: wheel=FILE torch=2.11 [base=trixie]; judge its signature: key=PUBLIC.pem",
    ),
    "smoke": ("verbs_packages", "run the smoke tests on this machine's GPU: wheel=FILE interpreter=python3"),
    "verify-install": (
        "verbs_gpu",
        "look at the whole chain on a node, from GPU to kernels: WHEEL or NAME [key=PUBLIC.pem record=FILE]",
    ),
    "bench": ("verbs_gpu", "time attention against its peers: seqlen=1024,4096 headdim=128 causal=both out=DIR"),
    "memory": ("verbs_gpu", "measure the peak memory of attention over the length: seqlen=1024,4096 out=DIR"),
    "record": ("verbs_packages", "join a smoke run's result to the wheel's record: gpu.json"),
    "reproduce": (
        "verbs_proof",
        "build a wheel again from its record and compare: wheel=FILE, or twice profile=hdim128-bf16",
    ),
    "sign": ("verbs_proof", "sign a wheel and its record: wheel=FILE key=PRIVATE.pem, or key=new folder=FOLDER"),
    "publish": ("verbs_index", "publish proven packages: to=FOLDER, s3://, gs:// or https://; promote=, yank="),
    "bundle": ("verbs_bundle", "make a tar that installs with no network: cuda=12.8 torch=2.9 [with=torch]"),
    "cache": ("verbs_cache", "look after compiled objects: stats, verify, share or trim=20GB"),
    "serve": ("verbs_serve", "show a published index to a laboratory: folder=DIR host=127.0.0.1 port=8000"),
    "clean": ("verbs", "remove what can be made again: what=work, cache or wheelhouse"),
}
"""Each verb, the module with the function of its name (with _ for -), and what it does."""
JSON_VERBS: Final = ("plan", "patch", "build", "matrix", "doctor", "verify-install", "bench", "memory")
PUBLISHING: Final = ("publish",)
UNPROVEN: Final = (*PUBLISHING, "bundle")
FLAGS: Final = {"json": JSON_VERBS, "dry_run": PUBLISHING, "allow_unproven": UNPROVEN}


def main() -> NoReturn:
    """Run the command line and exit with the code of what happened."""
    # Whoever stops us politely (a batch system, nox, a closed terminal) gets the same clean end as Ctrl-C.
    for stop in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stop) is not signal.SIG_IGN:
            signal.signal(stop, signal.default_int_handler)
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: Sequence[str]) -> int:
    """Run one command; errors are printed to standard error and become exit codes."""
    try:
        if not argv:
            raise InputError(f"which verb? there are {', '.join(VERBS)}", hint="hopperforge --help")
        arguments = _parser().parse_intermixed_args(argv)  # flags may stand between words
        _check_flags(arguments)
        call = _call(arguments)
        with contextlib.closing(call.workspace.reporter):
            find_verb(arguments.verb)(call)
        sys.stdout.flush()
    except HopperforgeError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print(  # noqa: T201
            "interrupted: what ran was stopped and half-made files removed; what was finished is kept\n"
            "hint: the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse a flag that the verb does not look at."""
    for name, having in FLAGS.items():
        if getattr(arguments, name) and arguments.verb not in having:
            flag = name.replace("_", "-")
            has = "have" if len(having) > 1 else "has"
            raise InputError(f"{arguments.verb} has no --{flag}; {', '.join(having)} {has}")


def find_verb(name: str) -> Callable[[verbs.Call], None]:
    """Import a verb's module, and no other: some need libraries that take as long to load as a whole plan."""
    verb: Callable[[verbs.Call], None] = getattr(
        importlib.import_module(f"hopperforge.{VERBS[name][0]}"), name.replace("-", "_")
    )
    return verb


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message, hint="hopperforge --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hopperforge", description="Build, prove and keep packages of FlashAttention-3.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "verb", choices=VERBS, metavar="verb", help="; ".join(f"{v}: {h}" for v, (_, h) in VERBS.items())
    )
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="what is asked for, as in cuda=13.0 torch=2.9,2.11, or all"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep what a failed container worked on, and say how to get in"
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON on standard output")
    parser.add_argument("--dry-run", action="store_true", help="publish: say what would be done, and write nothing")
    parser.add_argument(
        "--allow-unproven", action="store_true", help="publish: take what lacks a proof too; the index says so of it"
    )
    parser.add_argument("--verbose", action="store_true", help="show the output of compilers and tools")
    return parser


def _call(arguments: argparse.Namespace) -> verbs.Call:
    project = _find_project(Path.cwd())
    cache = os.environ.get("HOPPERFORGE_CACHE") or platformdirs.user_cache_dir("hopperforge")
    workspace = Workspace(
        project=project,
        cache=Path(cache).absolute(),
        wheelhouse=Path(os.environ.get("HOPPERFORGE_WHEELHOUSE") or project / "wheelhouse").absolute(),
        environ=dict(os.environ),
        reporter=standard_reporter(verbose=arguments.verbose),
        shared=_shared_store(os.environ.get("HOPPERFORGE_STORE")),
    )
    return verbs.Call(
        words=tuple(arguments.words),
        as_json=arguments.json,
        workspace=workspace,
        python=PythonVersion(*sys.version_info[:2]),
        platform=f"{platform.system().lower()}_{platform.machine()}",
        now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        answer=print,
        glibc=platform.libc_ver()[1],
        root=os.geteuid() == 0,
        keep=arguments.keep,
        dry_run=arguments.dry_run,
        allow_unproven=arguments.allow_unproven,
    )


def _shared_store(text: str | None) -> StorePlace | None:
    if not text:
        return None
    try:
        return StorePlace.parse(text)
    except ValueError as error:
        raise InputError(
            f"HOPPERFORGE_STORE: {error}", hint="export HOPPERFORGE_STORE=s3://bucket/prefix   # or unset it"
        ) from error


def _find_project(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / "matrix.yaml").is_file() and (folder / "recipes").is_dir():
            return folder
    raise InputError(
        f"{start} is in no checkout of hopperforge: no matrix.yaml and recipes/ here or above",
        hint="cd into the checkout",
    )


if __name__ == "__main__":
    main()
