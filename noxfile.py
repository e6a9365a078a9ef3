"""The front door. Every session only installs hopperforge and calls its verb of the same name."""

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")


def groups(*names: str) -> tuple[str, ...]:
    """List the requirements of dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def run(session: nox.Session, *command: str) -> None:
    """Run `command` with time to clean up after Ctrl-C; without, compilers and half-made folders would stay."""
    session.run(*command, *session.posargs, interrupt_timeout=60, terminate_timeout=20)


def install(session: nox.Session) -> None:
    """Install hopperforge; a second time this reaches no network, for nothing is fetched to build it."""
    session.install("--quiet", *PROJECT["build-system"]["requires"], "editables")
    extra = "[dask]" if "executor=dask" in session.posargs else ""
    session.install("--quiet", "--no-build-isolation", "-e", f".{extra}")


def verb(session: nox.Session, name: str) -> None:
    """Run `hopperforge NAME` with the words given after `--`."""
    install(session)
    run(session, "hopperforge", name)


@nox.session(default=False)
def plan(session: nox.Session) -> None:
    """Show what would be built, and why, without building it."""
    verb(session, "plan")


@nox.session(default=False)
def matrix(session: nox.Session) -> None:
    """Show what was built and proven, what can be built here, and what is declared only."""
    verb(session, "matrix")


@nox.session(default=False)
def fetch(session: nox.Session) -> None:
    """Fetch and verify the pinned upstream source."""
    verb(session, "fetch")


@nox.session(default=False)
def patch(session: nox.Session) -> None:
    """Apply the patch series and list the units of a profile."""
    verb(session, "patch")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build packages into wheelhouse/: nox -s build -- cuda=13.0 torch=2.11, or all."""
    verb(session, "build")


@nox.session(default=False)
def image(session: nox.Session) -> None:
    """Make the builder image of a toolkit: nox -s image -- cuda=13.0."""
    verb(session, "image")


@nox.session(default=False)
def doctor(session: nox.Session) -> None:
    """Say what this machine lacks, and how to mend it: engine, or node index=URL."""
    verb(session, "doctor")


@nox.session(default=False)
def verify(session: nox.Session) -> None:
    """Import a wheel against a real torch and join the result to its record: wheel=FILE torch=2.11 [base=trixie]."""
    verb(session, "verify")


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Run a recipe's smoke tests on this machine's GPU: wheel=FILE interpreter=python3."""
    verb(session, "smoke")


@nox.session(default=False)
def record(session: nox.Session) -> None:
    """Join the result of a smoke run to the wheel's record: gpu.json."""
    verb(session, "record")


@nox.session(default=False)
def publish(session: nox.Session) -> None:
    """Publish proven packages to an index: to=/srv/index, s3:// or https://; promote=, yank=, --dry-run."""
    verb(session, "publish")


@nox.session(default=False)
def bundle(session: nox.Session) -> None:
    """Make a tar that installs with no network: cuda=12.8 torch=2.9 [python=3.12 with=torch]."""
    verb(session, "bundle")


@nox.session(default=False)
def cache(session: nox.Session) -> None:
    """Look after compiled objects: stats, verify, share or trim=20GB."""
    verb(session, "cache")


@nox.session(default=False)
def serve(session: nox.Session) -> None:
    """Show a published index to a laboratory, read-only: folder=index host=127.0.0.1 port=8000."""
    verb(session, "serve")


@nox.session(default=False)
def clean(session: nox.Session) -> None:
    """Remove what can be made again: what=work, cache or wheelhouse."""
    verb(session, "clean")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout."""
    session.install("--quiet", *groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session)
    session.install("--quiet", *groups("type", "test"))
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test this machine can run: units in milliseconds, then the real thing from real source."""
    install(session)
    session.install("--quiet", *groups("test"))
    run(session, "pytest", "--integration")
