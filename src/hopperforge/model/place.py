"""Where an object store that machines share is: a folder, or a prefix of a bucket."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_BUCKET: Final = re.compile(
    r"(?P<scheme>s3|gs)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9])(?P<prefix>/.*)?"
)
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._=+-]+)*/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """A place as it is written: `/folder`, `s3://bucket/prefix` or `gs://bucket/prefix`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a place; ValueError says what is wrong and never repeats what may be a password."""
        if "@" in text and "://" in text:
            message = "a store is named without user and password; those come from the environment"
            raise ValueError(message)
        bucket = _BUCKET.fullmatch(text)
        if bucket is not None:
            prefix = bucket["prefix"] or ""
            if _PREFIX.fullmatch(prefix) is None or {".", ".."} & set(prefix.split("/")):
                message = f'"{prefix}" is no prefix in a bucket; write letters, digits and . _ = + - between slashes'
                raise ValueError(message)
            return cls(text=text.rstrip("/"))
        if "://" not in text and Path(text).is_absolute():
            return cls(text=str(Path(text)))
        message = f'"{text}" is neither a folder from the root on, nor s3://bucket/prefix, nor gs://bucket/prefix'
        raise ValueError(message)

    @property
    def folder(self) -> Path | None:
        """The folder, None if the place is in a bucket."""
        return None if "://" in self.text else Path(self.text)

    def __str__(self) -> str:
        return self.text
