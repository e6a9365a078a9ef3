"""How long the simple pages of a large index take: python benchmarks/index_pages.py [PACKAGES ...].

Packages as years of releases would leave them (tests/unit/index_zoo.py). CPU seconds of reading the catalog, making
every page, writing the catalog again, and of comparing all pages after one more package was added.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.index_zoo import entry, many

from hopperforge.index.catalog import Catalog
from hopperforge.index.whole import index_files


def seconds(work: Callable[[], object]) -> float:
    """The CPU seconds of some work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def row(count: int) -> tuple[str, ...]:
    """One row of the table."""
    catalog = many(count)
    data = catalog.to_json()
    pages: list[Mapping[str, bytes]] = []
    made = seconds(lambda: pages.append(index_files(catalog)))
    more = index_files(Catalog.of([*catalog.packages, entry("9.0.0+cu124torch2.6")]))
    changed = sum(data != pages[0].get(path) for path, data in more.items())
    return (
        str(count),
        f"{seconds(lambda: Catalog.from_json(data, 'it')):.2f}",
        f"{made:.2f}",
        str(len(pages[0])),
        f"{sum(map(len, pages[0].values())) / 1e6:.1f}",
        str(changed),
    )


def main() -> None:
    """Print one table."""
    counts = [int(word) for word in sys.argv[1:]] or [100, 1_000, 10_000]
    columns = ("packages", "read s", "pages s", "pages", "MB", "changed by one more")
    for cells in [columns, *map(row, counts)]:
        print("  ".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
