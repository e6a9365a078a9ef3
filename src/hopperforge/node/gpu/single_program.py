"""The programs of this folder as one file that Python runs: `python3 node.pyz bench seqlen=4096`.

A zip of the modules as they are, with fixed times, so that equal modules give equal bytes. It is not part of itself.
"""

import io
import zipfile
from importlib.resources import files
from typing import Final

_OWN: Final = "hopperforge"
_FOLDERS: Final = ("", "node", "node/gpu")
_NOT_PARTS: Final = ("single_file.py", "single_program.py")
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_START: Final = b"import sys\n\nfrom hopperforge.node.gpu.command import main\n\nsys.exit(main(sys.argv[1:]))\n"


def node_program() -> bytes:
    """Give the file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted({"__main__.py": _START, **_modules()}.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), text)
    return data.getvalue()


def _modules() -> dict[str, bytes]:
    """Give the modules by their place; of hopperforge itself the package's own file alone."""
    found = {}
    for folder in _FOLDERS:
        place = files(_OWN).joinpath(*folder.split("/")) if folder else files(_OWN)
        for one in place.iterdir():
            if one.name.endswith(".py") and one.name not in _NOT_PARTS and (folder or one.name == "__init__.py"):
                found["/".join((_OWN, *filter(None, (folder,)), one.name))] = one.read_bytes()
    return found
