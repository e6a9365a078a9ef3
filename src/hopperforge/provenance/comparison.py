"""Two records of what should be one package, compared stage by stage: which stage was the first to differ.

Stages are in the order of the pipeline, so what is named first is the cause and the rest may be its consequence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hopperforge.model.record import CompilerFacts, PackFacts, Record, ToolkitFacts
from hopperforge.model.request import Merge
from hopperforge.model.toolkit import ToolkitOrigin

_NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs: the stage ("patch", "unit flash_fwd_..."), of it what, and both values, shortened nowhere."""

    stage: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        """One line for a report."""
        return f"{self.stage}: {self.what} was {self.before}, and is {self.after}"


def rebuild_words(record: Record) -> tuple[str, ...]:
    """Give the words of `hopperforge build` that a record's package came of.

    A toolkit that was installed on the machine may come from anywhere now: it is compared by hash.
    """
    torches = sorted({cell.torch for cell in record.cells if cell.torch is not None})
    pythons = sorted({cell.python for cell in record.cells if cell.python is not None})
    merged = record.pack is not None and any(len(unit.sources) > 1 for unit in record.pack.units)
    return (
        f"recipe={record.recipe}",
        f"profile={record.profile}",
        *(() if record.toolkit is None else (f"cuda={record.toolkit.version}",)),
        *((f"torch={','.join(map(str, torches))}",) if torches else ()),
        *((f"python={','.join(map(str, pythons))}",) if pythons else ()),
        f"kernels={record.kernels}",
        f"merge={Merge.ON if merged else Merge.OFF}",
        *((f"toolkit={record.toolkit.origin}",) if record.toolkit and record.toolkit.origin in _FETCHED else ()),
        *((f"engine={record.engine}", f"base={record.image.base}") if record.image else ("engine=host",)),
    )


_FETCHED: Final = frozenset({ToolkitOrigin.REGISTRY, ToolkitOrigin.REDIST})


def compare_records(before: Record, after: Record) -> tuple[Difference, ...]:
    """List what differs of all that decides a package's bytes; empty for the same package."""
    return tuple(
        Difference(stage=stage, what=what, before=one, after=other)
        for stage, what, one, other in (*_inputs(before, after), *_outputs(before, after))
        if one != other
    )


_Compared = tuple[str, str, str, str]


def _inputs(before: Record, after: Record) -> Iterable[_Compared]:
    yield "request", "the profile", f"{before.recipe}/{before.profile}", f"{after.recipe}/{after.profile}"
    yield "request", "the switches", ", ".join(before.switches), ", ".join(after.switches)
    yield "source", "the commit", before.source.commit, after.source.commit
    yield "source", "the epoch", str(before.source.epoch), str(after.source.epoch)
    yield from _mapped("source", before.source.trees, after.source.trees)
    yield from _mapped("patch", before.source.patches, after.source.patches)
    yield "patch", "the patched kernels", before.source.kernel_tree, after.source.kernel_tree
    yield "patch", "the patched binding", before.source.front_tree, after.source.front_tree
    yield from _mapped("toolkit", _fingerprint(before.toolkit), _fingerprint(after.toolkit))
    yield from _mapped("host compiler", _fingerprint(before.host_compiler), _fingerprint(after.host_compiler))
    yield "image", "the base", _base(before), _base(after)
    yield "image", "the image", _image(before), _image(after)


def _fingerprint(facts: ToolkitFacts | CompilerFacts | None) -> Mapping[str, str]:
    return {} if facts is None else facts.fingerprint


def _base(record: Record) -> str:
    return f"{record.image.base} {record.image.base_id}" if record.image else _NOTHING


def _image(record: Record) -> str:
    return record.image.id if record.image else _NOTHING


def _outputs(before: Record, after: Record) -> Iterable[_Compared]:
    yield from _units(before.pack, after.pack)
    yield "pack", "the pack", _pack(before), _pack(after)
    yield "front", "the version", before.version, after.version
    yield "front", "the kind", before.front.kind, after.front.kind
    yield "front", "the framework's wheel", _framework(before), _framework(after)
    yield from _mapped("front", before.front.sources, after.front.sources)
    yield "front", "the flags", " ".join(before.front.flags), " ".join(after.front.flags)
    yield from _mapped("front", before.front.tools, after.front.tools)
    yield from _mapped("front", before.licences, after.licences)
    yield "front", "the library's size", str(before.wheel.library_size), str(after.wheel.library_size)
    yield "repair", "the file's name", before.wheel.file, after.wheel.file
    yield "repair", "the bill of materials", before.sbom or _NOTHING, after.sbom or _NOTHING
    yield "repair", "the tarball", _tarball(before), _tarball(after)
    yield "wheel", "the wheel", before.wheel.sha256, after.wheel.sha256


def _tarball(record: Record) -> str:
    return record.tarball.sha256 if record.tarball else _NOTHING


def _framework(record: Record) -> str:
    framework = record.front.framework
    return f"{framework.name} {framework.release} {framework.wheel_sha256}" if framework else _NOTHING


def _pack(record: Record) -> str:
    return record.pack.sha256 if record.pack else _NOTHING


def _units(before: PackFacts | None, after: PackFacts | None) -> Iterable[_Compared]:
    """Compare units by path: another key is other inputs, another object of one key is a compiler that varies."""
    one, other = ({unit.path: unit for unit in pack.units} if pack else {} for pack in (before, after))
    for path in sorted(one.keys() | other.keys()):
        stage = f"unit {path}"
        if path not in one or path not in other:
            yield stage, "it", "there" if path in one else "not there", "there" if path in other else "not there"
        elif one[path].key != other[path].key:
            yield stage, "the key", one[path].key, other[path].key
        else:
            yield stage, "the object", one[path].sha256, other[path].sha256


def _mapped(stage: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[_Compared]:
    for name in sorted(before.keys() | after.keys()):
        yield stage, name, before.get(name, _NOTHING), after.get(name, _NOTHING)
