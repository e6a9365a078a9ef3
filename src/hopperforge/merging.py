"""Which units of a profile are compiled together: several sources in one compile.

Most of the time of a compile goes into headers and templates that related sources share, so compiling them together
costs far less. The recipe's rules decide, and nothing of the machine, so that a pack is the same bytes everywhere.

It is safe because upstream's instantiation files hold nothing but explicit instantiations of templates that the headers
they all include define (tests/integration/test_units.py reads them): every instantiation is in one file alone, and the
headers are read once. The object has the symbols the single objects would have: the templates' are weak, so the linker
keeps one of each either way. A name of internal linkage (`static`, an anonymous namespace) would still be one for each
object, under a name made from the unit's; if two files defined one, or a macro, the compile would end with an error.
"""

import hashlib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Final

from hopperforge.model.keys import content_key
from hopperforge.model.pack import Unit
from hopperforge.model.recipe import MergeRule

FOLDER: Final = "merged"
"""Where the path of a merged unit says it is; there is no such folder in the source."""

_DIGEST_DIGITS: Final = 8


def merge_units(units: Sequence[Unit], rules: Sequence[MergeRule]) -> tuple[Unit, ...]:
    """Merge units as `rules` say; the order of `units` does not matter, those that come out ascend.

    Units with different arguments are never merged, whatever their names: each source is compiled as if by itself.
    """
    families: dict[tuple[MergeRule, str, tuple[str, ...]], list[Unit]] = {}
    made: list[Unit] = []
    for unit in sorted(units):
        rule = next((rule for rule in rules if fnmatchcase(unit.name, rule.units)), None)
        if rule is None:
            made.append(unit)
        else:
            families.setdefault((rule, family(unit.name, rule), unit.arguments), []).append(unit)
    for (rule, name, _), members in families.items():
        made += [_merged(name, part) for part in _parts(members, rule)]
    return tuple(sorted(made))


def family(name: str, rule: MergeRule) -> str:
    """Name what units have in common that `rule` merges: flash_fwd_hdim128_bf16_sm90 of ..._softcap_packgqa_sm90."""
    return "_".join(word for word in name.split("_") if word not in rule.vary)


def _parts(members: Sequence[Unit], rule: MergeRule) -> list[list[Unit]]:
    """Part a family into as few units as its rule allows, of as equal numbers as possible."""
    ordered = sorted(members, key=lambda unit: (*(word in unit.name.split("_") for word in rule.vary), unit.path))
    count = math.ceil(len(ordered) / rule.largest)
    bounds = [len(ordered) * number // count for number in range(count + 1)]
    return [ordered[start:end] for start, end in pairwise(bounds)]


def _merged(name: str, members: Sequence[Unit]) -> Unit:
    """Make one unit of several; its name tells how many they are and, in short, which."""
    if len(members) == 1:
        return members[0]
    sources = tuple(sorted(unit.path for unit in members))
    seen = sorted(unit.sees for unit in members)
    digest = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:_DIGEST_DIGITS]
    path = f"{FOLDER}/{name}-x{len(sources)}-{digest}.cu"
    return Unit(
        path=path,
        arguments=members[0].arguments,
        merged=sources,
        sees=content_key("merged", {"parts": seen}) if all(seen) else "",
    )
