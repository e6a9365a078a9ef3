"""An index folder served by the real command, stopped by its id."""

import contextlib
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.integration.command import Running


@contextlib.contextmanager
def serving(folder: Path, home: Path, *words: str, env: Mapping[str, str | None] | None = None) -> Iterator[str]:
    """Serve `folder` on a free port of loopback; yields the address, which ends in a slash."""
    command = Running(
        "serve", f"folder={folder}", "port=0", *words, home=home, env={"HOPPERFORGE_SERVE_TOKEN": None, **(env or {})}
    )
    try:
        line = command.wait_for("serve ", timeout=60)
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found is not None, line
        yield found[0]
    finally:
        command.send(signal.SIGTERM)
