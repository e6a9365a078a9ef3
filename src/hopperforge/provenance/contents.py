"""What a package is made of, as its bill of materials lists it: known before it is built, and read from records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hopperforge.model.record import CompilerFacts, FrontFacts, ImageFacts, Record, SourceFacts, ToolkitFacts

EXPRESSION: Final = "BSD-3-Clause AND LicenseRef-NVIDIA-CUDA-Toolkit"
"""FlashAttention, CUTLASS and hopperforge's own Python; libdevice and the CUDA runtime, by NVIDIA's agreement."""

PURE_EXPRESSION: Final = "BSD-3-Clause"
"""That of hopperforge's own Python, where there is nothing else."""

CUTLASS: Final = "csrc/cutlass/include"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What went into a package. Where the same bytes came from (index, mirror, machine) is no part of it.

    `toolkit` and `host_compiler` are None where nothing was compiled; `licences` maps the files of dist-info/licenses
    to their sha256.
    """

    name: str
    version: str
    source: SourceFacts
    toolkit: ToolkitFacts | None
    host_compiler: CompilerFacts | None
    image: ImageFacts | None
    front: FrontFacts
    licences: Mapping[str, str]

    @classmethod
    def of(cls, record: Record) -> "Contents":
        """Take a record's word for it."""
        return cls(
            name=record.name,
            version=record.version,
            source=record.source,
            toolkit=record.toolkit,
            host_compiler=record.host_compiler,
            image=record.image,
            front=record.front,
            licences=record.licences,
        )

    @property
    def static_runtime(self) -> str | None:
        """The sha256 of the CUDA runtime that is linked in; None where it is not."""
        linked = any("cudart_static" in flag for flag in self.front.flags)
        return self.toolkit.fingerprint.get("cudart_static") if linked and self.toolkit is not None else None

    @property
    def expression(self) -> str:
        """The licences of all that is shipped, in the words of SPDX."""
        return EXPRESSION if self.front.kind.compiled else PURE_EXPRESSION

    def hashes(self) -> Mapping[str, str]:
        """Every hash that the bill must name, by the reference of its component."""
        found = {f"source/{folder}": digest for folder, digest in self.source.trees.items()}
        found |= {f"patch/{name}": digest for name, digest in self.source.patches.items()}
        if self.toolkit is not None:
            found |= {f"toolkit/{part}": digest for part, digest in self.toolkit.fingerprint.items()}
        if self.host_compiler is not None:
            found |= {f"host-compiler/{part}": digest for part, digest in self.host_compiler.fingerprint.items()}
        found |= {f"licence/{name}": digest for name, digest in self.licences.items()}
        found |= {f"front/{path}": digest for path, digest in self.front.sources.items()}
        if self.front.framework is not None:
            found[self.front.framework.name] = self.front.framework.wheel_sha256
        if self.static_runtime is not None:
            found["cuda-runtime"] = self.static_runtime
        if self.image is not None:
            found |= {"image": self.image.id, "image/base": self.image.base_id}
        return found
