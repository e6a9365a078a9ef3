"""Stands in for `hopperforge build executor=dask scheduler=...` in tests of scripts: compiles a shop's cheap units."""

import sys
from pathlib import Path

from tests.integration.cluster import Shop, units

from hopperforge.model.request import Cluster


def main() -> None:
    """Compile units a to f of the shop in the folder that is the last word, and print what came of it."""
    verb, executor, scheduler, folder = sys.argv[1:]
    if (verb, executor) != ("build", "executor=dask"):
        raise SystemExit(" ".join(sys.argv))
    shop = Shop(root=Path(folder))
    pack = shop.compile(units("abcdef"), Cluster(scheduler=scheduler.removeprefix("scheduler=")))
    print(f"pack {pack.sha256} compiled {pack.compiled}")  # noqa: T201
    print("\n".join([*shop.reporter.notes, *shop.reporter.warnings]))  # noqa: T201


if __name__ == "__main__":
    main()
