"""What is signed of a package: an in-toto Statement whose predicate is SLSA's provenance.

https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.0/provenance. The subjects are the wheel and the record
beside it, both by sha256; the predicate repeats of the record what the specification has a place for.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hopperforge.model.keys import JsonValue
from hopperforge.model.record import Record
from hopperforge.provenance.comparison import rebuild_words

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:hopperforge:build:1"
"""A build of `hopperforge build` with the words of externalParameters, as docs/explanation/trust.md describes it."""

_UPSTREAM: Final = "git+https://github.com/Dao-AILab/flash-attention"


def builder_id(key_id: str) -> str:
    """Name a builder: whoever holds this key vouches for where the build ran."""
    return f"urn:hopperforge:key:{key_id}"


def make_statement(record: Record, record_bytes: bytes, *, key_id: str) -> bytes:
    """Write the statement for a package whose record has these bytes, to be signed with that key."""
    record_sha256 = hashlib.sha256(record_bytes).hexdigest()
    statement: dict[str, JsonValue] = {
        "_type": STATEMENT,
        "subject": [
            {"name": record.wheel.file, "digest": {"sha256": record.wheel.sha256}},
            {"name": f"{record.wheel.file}.json", "digest": {"sha256": record_sha256}},
        ],
        "predicateType": PREDICATE,
        "predicate": _predicate(record, key_id),
    }
    return json.dumps(statement, indent=1, sort_keys=True).encode()


def _predicate(record: Record, key_id: str) -> dict[str, JsonValue]:
    made_by = record.made_by
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"words": list(rebuild_words(record))},
            "internalParameters": {"buildKey": record.build_key, "engine": record.engine},
            "resolvedDependencies": list(_dependencies(record)),
        },
        "runDetails": {
            "builder": {
                "id": builder_id(key_id),
                "version": {"hopperforge": made_by.version if made_by else "unknown"},
            },
            "metadata": {"invocationId": record.build_key, "finishedOn": record.created},
            "byproducts": [{"name": "sbom", "digest": {"sha256": record.sbom}}] if record.sbom else [],
        },
    }


def _dependencies(record: Record) -> Iterable[dict[str, JsonValue]]:
    source = record.source
    if source.commit:
        yield {"uri": f"{_UPSTREAM}@{source.commit}", "digest": {"gitCommit": source.commit}}
    for folder, tree in source.trees.items():
        yield {"name": folder, "digest": {"gitTree" if source.commit else "sha256": tree}}
    if record.made_by is not None and record.made_by.commit is not None:
        yield {
            "name": "hopperforge",
            "digest": {"gitCommit": record.made_by.commit},
            "annotations": {"clean": record.made_by.clean},
        }
    for kind, parts in (
        ("patch", source.patches),
        ("toolkit", record.toolkit.fingerprint if record.toolkit else {}),
        ("host-compiler", record.host_compiler.fingerprint if record.host_compiler else {}),
        ("front", record.front.sources),
    ):
        for name, digest in parts.items():
            yield {"name": f"{kind}/{name}", "digest": {"sha256": digest}}
    framework = record.front.framework
    if framework is not None:
        yield {
            "uri": f"pkg:pypi/{framework.name}@{framework.release}",
            "digest": {"sha256": framework.wheel_sha256},
        }
    if record.image is not None:
        yield {"name": f"base/{record.image.base}", "digest": {"sha256": record.image.base_id}}


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Subject(_Shape):
    """A file a statement speaks of."""

    name: str
    digest: Mapping[str, str]


class _Builder(_Shape):
    id: str


class _Run(_Shape):
    builder: _Builder


class _Definition(_Shape):
    build_type: Annotated[Literal["urn:hopperforge:build:1"], Field(alias="buildType")]
    internal: Annotated[Mapping[str, Any], Field(alias="internalParameters")]


class _Predicate(_Shape):
    definition: Annotated[_Definition, Field(alias="buildDefinition")]
    run: Annotated[_Run, Field(alias="runDetails")]


class Statement(_Shape):
    """What a verifier reads of a statement; the specification lets others add fields."""

    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicate_type: Annotated[Literal["https://slsa.dev/provenance/v1"], Field(alias="predicateType")]
    predicate: _Predicate


def read_statement(payload: bytes) -> Statement:
    """Read a statement; ValueError says in one line what it is not."""
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = f"{'.'.join(map(str, first['loc'])) or 'the payload'}: {first['msg']}"
        raise ValueError(message) from error


def statement_problems(
    statement: Statement, record: Record, record_sha256: str, *, key_ids: Iterable[str]
) -> list[str]:
    """List where a statement speaks of another package, record or builder than those at hand."""
    digests = {subject.name: subject.digest.get("sha256") for subject in statement.subject}
    expected = {record.wheel.file: record.wheel.sha256, f"{record.wheel.file}.json": record_sha256}
    problems = [
        f"it names the sha256 {digests.get(name)} for {name}, which has {digest}"
        for name, digest in expected.items()
        if digests.get(name) != digest
    ]
    if len(statement.subject) != len(expected):
        problems.append(f"it speaks of {len(statement.subject)} files, expected are the wheel and its record")
    builder = statement.predicate.run.builder.id
    if builder not in {builder_id(key_id) for key_id in key_ids}:
        problems.append(f"it was made by {builder}, who has not signed it")
    if statement.predicate.definition.internal.get("buildKey") != record.build_key:
        problems.append("its build key is not the record's")
    return problems
