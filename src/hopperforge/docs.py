"""Text in the README that is generated from the code: `python -m hopperforge.docs README.md` renews it."""

import re
import sys
from pathlib import Path

from hopperforge import errors
from hopperforge.run.files import write_atomic

_EXIT_CODES = re.compile(r"(<!-- exit codes: .*? -->\n).*?(<!-- end of exit codes -->)", re.DOTALL)


def exit_codes() -> dict[int, str]:
    """Map every exit code to its meaning."""
    codes = {0: "done", errors.BUG_EXIT_CODE: "a bug of hopperforge", errors.INTERRUPTED_EXIT_CODE: "interrupted"}
    codes |= {error.exit_code: error.meaning for error in errors.HopperforgeError.__subclasses__()}
    return dict(sorted(codes.items()))


def renew(text: str) -> str:
    """Put the present exit codes between their two marks."""
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes().items())
    table = f"| code | meaning |\n|---|---|\n{rows}"
    return _EXIT_CODES.sub(lambda match: match[1] + table + match[2], text)


def main(paths: list[str]) -> None:
    """Renew the files named."""
    for path in map(Path, paths):
        write_atomic(path, renew(path.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
