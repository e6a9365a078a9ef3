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


def verb(name: str, summary: str) -> None:
    """Make the session that runs `hopperforge NAME` with the words given after `--`."""

    def run_verb(session: nox.Session) -> None:
        install(session)
        run(session, "hopperforge", name)

    run_verb.__doc__ = summary
    nox.session(name=name, default=False)(run_verb)


verb("plan", "Show what would be built, and why, without building it.")
verb("matrix", "Show what was built and proven, what can be built here, and what is declared only.")
verb("fetch", "Fetch and verify the pinned upstream source.")
verb("patch", "Apply the patch series and list the units of a profile.")
verb("build", "Build packages into wheelhouse/: nox -s build -- cuda=13.0 torch=2.11, or all.")
verb("image", "Make the builder image of a toolkit: nox -s image -- cuda=13.0.")
verb("doctor", "Say what this machine lacks, and how to mend it: engine, or node index=URL.")
verb("verify", "Import a wheel against a real torch, or judge its signature: wheel=FILE torch=2.11 or key=PUBLIC.pem.")
verb("smoke", "Run a recipe's smoke tests on this machine's GPU: wheel=FILE interpreter=python3.")
verb("verify-install", "Look at the whole chain on a node: WHEEL or NAME [key=PUBLIC.pem] interpreter=python3.")
verb("bench", "Time attention against its peers: seqlen=1024,4096 headdim=128 out=DIR interpreter=python3.")
verb("memory", "Measure the peak memory of attention over the sequence length: seqlen=1024,4096 out=DIR.")
verb("record", "Join the result of a smoke run to the wheel's record: gpu.json.")
verb("publish", "Publish proven packages: to=FOLDER, s3://BUCKET or https://SERVER; promote=, yank=, --dry-run.")
verb("bundle", "Make a tar that installs with no network: cuda=12.8 torch=2.9 [python=3.12 with=torch].")
verb("reproduce", "Build a wheel again from its record and compare: wheel=FILE or URL, or twice profile=NAME.")
verb("sign", "Sign a wheel and its record: wheel=FILE key=PRIVATE.pem; key=new folder=FOLDER makes keys.")
verb("cache", "Look after compiled objects: stats, verify, share or trim=20GB.")
verb("serve", "Show a published index to a laboratory, read-only: folder=index host=127.0.0.1 port=8000.")
verb("clean", "Remove what can be made again: what=work, cache or wheelhouse.")


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
