"""A package's tarball on its way to an index, and from one index to another."""

import hashlib
from pathlib import Path

import pytest
from tests.unit.publish_zoo import MOMENT, catalog_of, fetched, packages, parcels, shelve

from hopperforge.config.project import Project
from hopperforge.errors import PublishError
from hopperforge.model.record import FileFacts
from hopperforge.stages.parcels import from_index, from_wheelhouse
from hopperforge.stages.publish import publish
from hopperforge.store.targets import FolderTarget

NAME = "tiny-1.0+cu130-manylinux_2_17_x86_64.tar.zst"
PLACE = f"pool/fa3-fwd/{NAME}"
CONTENT = b"packed"


@pytest.fixture
def target(tmp_path: Path) -> FolderTarget:
    return FolderTarget(tmp_path / "index")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    facts = FileFacts(file=NAME, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    shelve(folder, tarball=facts)
    (folder / NAME).write_bytes(CONTENT)
    return folder


def test_it_lies_beside_the_wheel_and_is_promoted_with_it(
    house: Path, target: FolderTarget, tmp_path: Path, facts: Project
) -> None:
    publish(target, parcels(house, facts))
    assert fetched(target, PLACE) == CONTENT
    production = FolderTarget(tmp_path / "production")
    (entry,) = catalog_of(target).packages
    candidate = from_index(target, entry, MOMENT)
    assert candidate.parcel is not None
    publish(production, [candidate.parcel])
    assert fetched(production, PLACE) == CONTENT


def test_other_bytes_under_its_name_are_refused(house: Path, target: FolderTarget, facts: Project) -> None:
    assert target.create(PLACE, b"other")
    with pytest.raises(PublishError) as caught:
        publish(target, parcels(house, facts))
    assert caught.value.detail[0].startswith(f"{PLACE}: sha256 ")
    assert catalog_of(target).packages == ()


def test_one_that_changed_since_is_not_published(house: Path, target: FolderTarget, facts: Project) -> None:
    checked = parcels(house, facts)
    (house / NAME).write_bytes(b"changed")
    with pytest.raises(PublishError, match="is not the file its record names"):
        publish(target, checked)


def test_a_package_whose_tarball_is_gone_counts_as_never_built(house: Path) -> None:
    (house / NAME).unlink()
    assert packages(house) == ()


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, facts: Project) -> None:
    folder = tmp_path / "other"
    shelve(folder, tarball=FileFacts(file=f"../{NAME}", sha256=hashlib.sha256(CONTENT).hexdigest(), size=6))
    (tmp_path / NAME).write_bytes(CONTENT)
    (package,) = packages(folder)
    assert from_wheelhouse(package, facts, MOMENT).wrong == (
        f'its record says tarball "../{NAME}", which is no plain name of one',
    )
