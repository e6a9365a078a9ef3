"""The verb that shows a published index to a laboratory."""

from pathlib import Path
from typing import Final

from hopperforge.config.request import parse_keyed
from hopperforge.errors import InputError
from hopperforge.run.serve import StaticSite, address, listen
from hopperforge.run.serve import serve as serve_site
from hopperforge.verbs import Call

TOKEN_VARIABLE: Final = "HOPPERFORGE_SERVE_TOKEN"  # noqa: S105 - the variable's name
_PORTS: Final = range(65536)


def serve(call: Call) -> None:
    """Serve a published index, read-only, until stopped."""
    words = parse_keyed(call.words, frozenset({"folder", "host", "port"}))
    folder = _index(Path(words["folder"]) if "folder" in words else call.workspace.project / "index")
    port = _port(words.get("port", "8000"))
    token = _token(call)
    reporter = call.workspace.reporter
    site = StaticSite(folder, token=token, log=lambda line: reporter.output("serve", line))
    listening = listen(words.get("host", "127.0.0.1"), port)
    readers = "whoever shows the token" if token else "whoever reaches it"
    reporter.stage("serve", f"{folder} at {address(listening)} to {readers}; Ctrl-C stops it")
    serve_site(site, listening)
    reporter.note("stopped")


def _index(folder: Path) -> Path:
    if (folder / "index.html").is_file():
        return folder.absolute()
    raise InputError(
        f"{folder} is no published index: it has no index.html", hint=f"nox -s publish -- to={folder}   # then serve it"
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(_PORTS[-1])) and int(text) in _PORTS:
        return int(text)
    raise InputError(f'"{text}" is no port: it is a number up to {_PORTS[-1]}, 0 for any free one', hint="port=8000")


def _token(call: Call) -> str | None:
    """Read the token; one that is set and empty is an accident that would open the index to everyone."""
    token = call.workspace.environ.get(TOKEN_VARIABLE)
    if token is None or (token.isascii() and token.isprintable() and token.strip() == token != ""):
        return token
    raise InputError(
        f"{TOKEN_VARIABLE} is set, but it is empty, begins or ends with a blank, or has other than plain characters",
        hint=f"export {TOKEN_VARIABLE}=$(openssl rand -hex 16)   # or unset it to serve without a token",
    )
