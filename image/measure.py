"""Runs a command inside a container and says what it took: the last line printed is `MARK` and a JSON object.

hopperforge cannot measure a compiler behind an engine's client, so this stands between the two. It is the container's
first process, which ignores signals it has no handler for: SIGTERM ends the command. Python 3.9, standard library.
"""

import json
import resource
import signal
import subprocess
import sys
from types import FrameType
from typing import Optional

MARK = "hopperforge-usage: "


def main() -> int:
    """Run the command in argv; the status is the command's, 128 + N after signal N."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)  # noqa: S603

    def stop(_number: int, _frame: Optional[FrameType]) -> None:  # noqa: UP045 - Python 3.9
        child.kill()

    signal.signal(signal.SIGTERM, stop)
    status = child.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(MARK + json.dumps({"peak_rss": usage.ru_maxrss * 1024}), flush=True)  # noqa: T201
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
