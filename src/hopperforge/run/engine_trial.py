"""A container run on trial: that an engine answers does not say that it can start a container here.

podman on a machine without systemd, or an engine nested in a container itself, answers every question and fails at
the first start. So a program of a few bytes is run, in an image of its own, with the arguments that builds use.
"""

import io
import secrets
import struct
import tarfile
from pathlib import Path
from typing import Final

from hopperforge.report import Recorder
from hopperforge.run.engine import Client, Command, ContainerEngine
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.process import Completed

IMAGE: Final = "hopperforge-trial:1"

_PROGRAM: Final = "/succeed"
# mov eax, 60 (exit); xor edi, edi; syscall
_CODE: Final = bytes.fromhex("b83c000000 31ff 0f05")
_LOAD_AT: Final = 0x400000
_FILE_HEADER: Final = "<4s 5B 7x HHI QQQ I 6H"
_SEGMENT_HEADER: Final = "<II 6Q"
_MEMORY: Final = 64 * 2**20  # bytes; engines refuse limits below a few MiB


def try_container(client: Client, scratch: Path) -> Completed:
    """Run the trial; its status is 0 if containers work. The image stays in the engine: it has a few hundred bytes.

    `scratch` is a folder for what goes into the image.
    """
    if client.inspect(IMAGE) is None:
        with temporary_folder(make_folder(scratch), "trial") as folder:
            archive = folder / "image.tar"
            archive.write_bytes(trial_image())
            imported = client.ask("import", archive, IMAGE)
        if imported.status != 0:
            return imported
    engine = ContainerEngine(client=client, image=IMAGE, ground="", reporter=Recorder())
    command = Command(name="trial", argv=(_PROGRAM,), cwd=Path("/"), env={}, mounts=(), memory=_MEMORY)
    name = f"hopperforge-trial-{secrets.token_hex(6)}"  # two trials at once must not meet
    return client.ask(*engine.arguments(command, name), *command.argv)


def trial_image() -> bytes:
    """Make a root file system with nothing in it but the program."""
    program = _program()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(_PROGRAM.removeprefix("/"))
        member.mode, member.size = 0o755, len(program)
        tar.addfile(member, io.BytesIO(program))
    return stream.getvalue()


def _program() -> bytes:
    """Make a static executable for x86-64 Linux that exits with status 0 (layout: the ELF-64 object file format)."""
    header_size, segment_size = struct.calcsize(_FILE_HEADER), struct.calcsize(_SEGMENT_HEADER)
    start = header_size + segment_size
    end = start + len(_CODE)
    # 64 bits, little-endian, version 1, System V; an executable for machine 62; one segment and no sections
    identity = (b"\x7fELF", 2, 1, 1, 0, 0)
    sizes = (header_size, segment_size, 1, 0, 0, 0)
    header = struct.pack(_FILE_HEADER, *identity, 2, 62, 1, _LOAD_AT + start, header_size, 0, 0, *sizes)
    # loaded whole, readable and executable, aligned to pages
    segment = struct.pack(_SEGMENT_HEADER, 1, 5, 0, _LOAD_AT, _LOAD_AT, end, end, 0x1000)
    return header + segment + _CODE
