"""Units on real Dask clusters on the loopback: the same packs as here, and what happens when parts of one die."""

from pathlib import Path

import pytest
from tests.integration.cluster import Shop, farm, make_shop, units

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "shop")


def test_the_same_pack_from_here_and_from_one_two_and_three_workers(shop: Shop, tmp_path: Path) -> None:
    here = shop.compile(units("abcdef"), None)
    with farm(tmp_path / "farm", "one") as made:
        packs = []
        for name in ("two", "three", None):
            shop.forget()
            packs.append(shop.compile(units("abcdef"), made.cluster))
            if name is not None:
                made.worker(name)
    assert [(pack.key, pack.sha256, pack.compiled) for pack in packs] == 3 * [(here.key, here.sha256, 6)]
