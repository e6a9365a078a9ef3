"""The wheelhouse: the local folder of finished packages, each with its record beside it.

A package counts only if its record is there and names its sha256; the record is written last, so a run killed at
any moment leaves either the old pair, the new pair, or a package that counts for nothing.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hopperforge.errors import GateError, InputError, SmokeError
from hopperforge.model.record import Record, Reproduction, ServedCell
from hopperforge.model.wheel import GateResult, VerifiedWheel
from hopperforge.report import Reporter
from hopperforge.run.files import Lock, sha256_file, storage_guard, sweep, write_atomic, writing

RECORD_SUFFIX: Final = ".json"
SIGNATURE_SUFFIX: Final = ".dsse.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """A package in the wheelhouse whose bytes are those its record names."""

    path: Path
    record: Record


class Wheelhouse:
    """Finished packages in one folder; writers exclude each other by a lock in it."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder = folder
        self._reporter = reporter

    def add(self, wheel: VerifiedWheel, record: Record) -> Shelved:
        """Put a verified wheel and its record in, in place of any of the same file name.

        A GPU result already joined to the same bytes is kept. GateError if the record speaks of another file or
        holds a gate that failed; StorageError if the folder cannot be written.
        """
        _agree(wheel, record)
        final = self.folder / wheel.path.name
        with self._lock():
            sweep(self.folder, final.name)
            record = self._succeed(record)
            if not final.is_file() or sha256_file(final) != wheel.sha256:
                _copy(wheel.path, wheel.sha256, final)
            if wheel.tarball is not None:
                _copy(wheel.tarball.path, wheel.tarball.sha256, self.folder / wheel.tarball.path.name)
            self._write(final, record)
        return Shelved(path=final, record=record)

    def find(self, build_key: str) -> Shelved | None:
        """The package of a build key, if its bytes are still those of its record; a damaged one is warned of."""
        for record in self.records():
            if record.build_key == build_key:
                return self._shelved(record)
        return None

    def packages(self) -> tuple[Shelved, ...]:
        """All packages whose bytes are those of their records, by file name; the others are warned of."""
        found = (self._shelved(record) for record in self.records())
        return tuple(package for package in found if package is not None)

    def records(self) -> tuple[Record, ...]:
        """All records that can be read, by file name; a damaged one is warned of and its package counts for nothing."""
        found = []
        for path in sorted(self.folder.glob(f"*.whl{RECORD_SUFFIX}")):
            try:
                found.append(Record.from_json(path.read_bytes(), str(path)))
            except InputError as error:
                self._reporter.warn(str(error))
        return tuple(found)

    def join_gpu(self, gpu: Mapping[str, Any], sha256: str) -> Record:
        """Write the smoke tests' results into the record of the wheel with this sha256.

        SmokeError if they hold a failure or were not the whole kit, InputError if no wheel here has this sha256.
        """
        _require_proof(gpu)
        return self._revise(sha256, lambda record: record.with_gpu(gpu))

    def join_cells(self, sha256: str, cells: Sequence[ServedCell]) -> Record:
        """Write further cells that the wheel serves into its record; InputError if none has this sha256."""
        return self._revise(sha256, lambda record: record.with_cells(cells))

    def join_gates(self, sha256: str, gates: Sequence[GateResult]) -> Record:
        """Write results of gates run later into the record of a wheel; InputError if none has this sha256."""
        return self._revise(sha256, lambda record: record.with_gates(gates))

    def join_reproduction(self, sha256: str, reproduction: Reproduction) -> Record:
        """Write that the wheel was rebuilt with the same bytes into its record; InputError if none has this sha256."""
        return self._revise(sha256, lambda record: record.with_reproduction(reproduction))

    def _revise(self, sha256: str, revise: Callable[[Record], Record]) -> Record:
        with self._lock():
            for record in self.records():
                if record.wheel.sha256 == sha256 and self._shelved(record) is not None:
                    revised = revise(record)
                    self._write(self.folder / record.wheel.file, revised)
                    return revised
        raise InputError(
            f"no package in {self.folder} has the sha256 {sha256}",
            detail=["the results are of another wheel, or of one that was rebuilt since"],
            hint=f"sha256sum {self.folder}/*.whl   # run the tests with one of these",
        )

    def _write(self, wheel: Path, record: Record) -> None:
        """Write a record; a signature over the one before would prove nothing any more, so it goes."""
        place, data = _record_path(wheel), record.to_json()
        signature = wheel.with_name(wheel.name + SIGNATURE_SUFFIX)
        if signature.is_file() and not (place.is_file() and place.read_bytes() == data):
            self._reporter.warn(f"{signature.name} was over the record before, and is removed: sign the package again")
            signature.unlink()
        write_atomic(place, data)

    def _lock(self) -> Lock:
        return Lock(
            self.folder / ".lock", on_wait=lambda: self._reporter.note(f"waiting for another run in {self.folder}")
        )

    def _shelved(self, record: Record) -> Shelved | None:
        path = self.folder / record.wheel.file
        if not path.is_file():
            self._reporter.warn(f"{_record_path(path)} is there, its wheel is not: it counts as never built")
            return None
        if sha256_file(path) != record.wheel.sha256:
            self._reporter.warn(f"{path} is not the file its record names: it counts as never built")
            return None
        beside = record.tarball
        if beside is not None and not _is_file(self.folder / beside.file, beside.sha256):
            self._reporter.warn(f"{beside.file} is not the file the record of {path} names: both count as never built")
            return None
        return Shelved(path=path, record=record)

    def _succeed(self, record: Record) -> Record:
        """Compare with the record that `record` takes the place of, say what changes, and keep a GPU result."""
        path = _record_path(self.folder / record.wheel.file)
        if not path.is_file():
            return record
        try:
            old = Record.from_json(path.read_bytes(), str(path))
        except InputError as error:
            self._reporter.warn(f"{error.sentence}; it is replaced")
            return record
        if old.wheel.sha256 == record.wheel.sha256:
            record = record.with_cells(old.cells)
            for reproduction in old.reproduced:
                record = record.with_reproduction(reproduction)
            return record.with_gpu(old.gpu) if record.gpu is None and old.gpu is not None else record
        before, now = (None if one.toolkit is None else one.toolkit.version for one in (old, record))
        if before != now:
            self._reporter.warn(
                f"{record.wheel.file} of CUDA {now} replaces the package of the same name that was "
                f"compiled with CUDA {before} on {old.created}"
            )
        elif old.build_key == record.build_key:
            self._reporter.warn(
                f"{record.wheel.file} came out with other bytes from the same inputs: "
                f"{old.wheel.sha256} before, {record.wheel.sha256} now"
            )
        else:
            self._reporter.note(f"{record.wheel.file} replaces the package made from other inputs on {old.created}")
        return record


def _is_file(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _record_path(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + RECORD_SUFFIX)


def _require_proof(gpu: Mapping[str, Any]) -> None:
    """Refuse results of the smoke tests that prove nothing: a failure, no test, or a part of the kit."""
    wrong = [
        *([f"{gpu.get('failed', 'an unknown number of')} tests failed"] if gpu.get("failed") != 0 else []),
        *(["no test passed"] if not gpu.get("passed") else []),
        *(["only a part of the kit was run"] if gpu.get("complete") is not True else []),
    ]
    if wrong:
        raise SmokeError("the results of the smoke tests prove nothing: " + ", ".join(wrong), hint="run the whole kit")


def _agree(wheel: VerifiedWheel, record: Record) -> None:
    """Refuse a record that is not of this wheel, or does not hold every gate passed."""
    facts = record.wheel
    wrong = [
        *([f"file {facts.file}, the wheel is {wheel.path.name}"] if facts.file != wheel.path.name else []),
        *([f"sha256 {facts.sha256}, the wheel has {wheel.sha256}"] if facts.sha256 != wheel.sha256 else []),
        *([f"size {facts.size}, the wheel has {wheel.size}"] if facts.size != wheel.size else []),
        *(["gates other than the wheel's"] if record.gates != wheel.gates or not record.gates else []),
        *(f"gate {result.name} failed: {result.detail}" for result in record.gates if not result.passed),
    ]
    if wrong:
        raise GateError(
            f"the record of {wheel.path.name} does not prove it", detail=[f"it says {line}" for line in wrong]
        )


def _copy(file: Path, sha256: str, final: Path) -> None:
    """Copy a file under its final name; GateError if its bytes changed since it was verified."""
    with storage_guard(final.parent), file.open("rb") as source, writing(final) as target:
        shutil.copyfileobj(source, target)
        target.flush()
        if sha256_file(Path(target.name)) != sha256:
            raise GateError(
                f"{file} changed after it was verified", hint="run the same command again: nothing was put in"
            )
