"""JSON Schemas of the files, for editors: `python -m hopperforge.config.schema docs/reference/schema`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from hopperforge.config.files import BasesFile, MatrixFile
from hopperforge.config.files_recipe import RecipeFile
from hopperforge.config.files_upstream import UpstreamFile

SCHEMAS: Final[Mapping[str, type[BaseModel]]] = {
    "bases.json": BasesFile,
    "matrix.json": MatrixFile,
    "recipe.json": RecipeFile,
    "upstream.json": UpstreamFile,
}
COMMAND: Final = "python -m hopperforge.config.schema docs/reference/schema"


def schema_text(name: str) -> str:
    """The text of one schema file, equal for equal models."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | _closed(SCHEMAS[name].model_json_schema()), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema into `folder`, over what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCHEMAS:
        (folder / name).write_text(schema_text(name), encoding="utf-8")


def _closed(schema: Any) -> Any:
    """The schema without titles, which repeat the keys, and with every mapping of named things closed.

    pydantic refuses a key of the wrong form, but the schema it writes lets one pass.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items() if key != "title" or isinstance(part, dict)}
    return closed | {"additionalProperties": False} if "patternProperties" in closed else closed


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
