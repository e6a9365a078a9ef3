"""Simple pages: who is listed where, what the pages say, and that equal catalogs give equal bytes."""

import html
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.index_zoo import catalog, cells, entry, many

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.pages import shelves, simple_pages
from hopperforge.index.simple import address
from hopperforge.index.whole import cache_control, content_type, index_files

ROOT = "https://wheels.example.org/fa3/"
STABLE_124 = entry("3.0.0+cu124", cells=cells("2.9", "2.11", runtime="12.8"))
STABLE_130 = entry("3.0.0+cu130", cells=cells("2.11"))
BOUND_124 = entry("3.0.0+cu124torch2.6", cells=cells("2.6", runtime="12.4"))
BOUND_126 = entry("3.0.0+cu126torch2.6", cells=cells("2.6", runtime="12.6"))
TRIMMED = entry("3.0.0+cu124.hdim128.bf16", profile="hdim128-bf16", default=False, cells=cells("2.9"))
BOUND_TRIMMED = entry(
    "3.0.0+cu124torch2.6.hdim128.bf16", profile="hdim128-bf16", default=False, cells=cells("2.6", runtime="12.4")
)


class Anchors(HTMLParser):
    """The anchors of a page: their attributes, and their text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an anchor."""
        if tag == "a":
            self.found.append(dict(attrs))
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        """Note the text of the anchor that is open."""
        if self.texts and data.strip():
            self.texts[-1] += data


def listed(made: Catalog) -> dict[str, list[str]]:
    """The versions that each shelf lists."""
    return {shelf: [found.version for found in entries] for shelf, entries in shelves(made).items()}


def files(pages: Mapping[str, bytes], shelf: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pages[f"{shelf}/simple/fa3-fwd/index.json"])["files"]
    return found


def test_a_stable_build_is_on_every_cuda_from_its_own_on_and_each_torch_it_serves() -> None:
    old, new = STABLE_124.version, STABLE_130.version
    assert listed(catalog(STABLE_124, STABLE_130)) == {
        "all": [old, new],
        "cu124": [old],
        "cu124/torch2.11": [old],
        "cu124/torch2.9": [old],
        "cu128": [old],
        "cu128/torch2.11": [old],
        "cu128/torch2.9": [old],
        "cu130": [old, new],
        "cu130/torch2.11": [old, new],
        "cu130/torch2.9": [old],
    }


def test_a_build_for_one_torch_is_on_that_torch_of_its_cuda_major_only() -> None:
    assert listed(catalog(BOUND_124, BOUND_126, entry("3.1.0+cu130", cells=cells("2.11")))) == {
        "all": [BOUND_124.version, BOUND_126.version, "3.1.0+cu130"],
        "cu124/torch2.6": [BOUND_124.version],
        "cu126/torch2.6": [BOUND_124.version, BOUND_126.version],
        "cu130": ["3.1.0+cu130"],
        "cu130/torch2.11": ["3.1.0+cu130"],
    }


def test_a_profile_that_is_not_the_default_has_shelves_of_its_own() -> None:
    assert listed(catalog(TRIMMED, BOUND_TRIMMED)) == {
        "all": [TRIMMED.version, BOUND_TRIMMED.version],
        "cu124/hdim128-bf16": [TRIMMED.version],
        "cu124/torch2.6/hdim128-bf16": [BOUND_TRIMMED.version],
        "cu124/torch2.9/hdim128-bf16": [TRIMMED.version],
        "cu130/hdim128-bf16": [TRIMMED.version],
        "cu130/torch2.9/hdim128-bf16": [TRIMMED.version],
    }


def test_a_toolkit_with_a_newer_assembler_counts_as_its_own_cuda() -> None:
    made = entry("3.0.0+cu124", toolkit="12.4+ptxas12.8", cells=cells("2.9", runtime="12.4"))
    assert set(listed(catalog(made))) == {"all", "cu124", "cu124/torch2.9"}


def test_a_new_cuda_in_the_catalog_lists_old_packages_too() -> None:
    before = catalog(replace(STABLE_124, cells=cells("2.9", runtime="12.4")))
    after = catalog(*before.packages, entry("3.1.0+cu130"))
    assert "cu130" not in listed(before)
    assert listed(after)["cu130"] == [STABLE_124.version, "3.1.0+cu130"]


@pytest.mark.parametrize("shelf", ["all", "cu130", "cu130/torch2.11", "cu124/torch2.9/hdim128-bf16"])
def test_addresses_lead_to_the_pool_from_every_depth_with_the_plus_encoded(shelf: str) -> None:
    pages = simple_pages(catalog(STABLE_130, TRIMMED))
    folder = f"{ROOT}{shelf}/simple/fa3-fwd/"
    anchors = Anchors(pages[f"{shelf}/simple/fa3-fwd/index.html"])
    from_html = [found["href"] or "" for found in anchors.found]
    from_json = [found["url"] for found in files(pages, shelf)]
    assert from_html
    assert [href.partition("#")[0] for href in from_html] == from_json
    for name, href in zip(anchors.texts, from_html, strict=True):
        path, _, fragment = urljoin(folder, href).removeprefix(ROOT).partition("#")
        (found,) = [found for found in (STABLE_130, TRIMMED) if found.file == name]
        assert fragment == f"sha256={found.sha256}"
        assert "+" not in path
        assert unquote(path) == found.path


def test_the_html_page_says_what_installers_need() -> None:
    made = replace(STABLE_130, yanked='slow "on" <H100>', requires_python=">=3.9,<4")
    (anchor,) = Anchors(simple_pages(catalog(made))["cu130/simple/fa3-fwd/index.html"]).found
    assert anchor == {
        "href": f"../../../pool/fa3-fwd/{made.file.replace('+', '%2B')}#sha256={made.sha256}",
        "data-requires-python": ">=3.9,<4",
        "data-core-metadata": f"sha256={made.metadata_sha256}",
        "data-yanked": 'slow "on" <H100>',
    }


def test_the_json_page_says_what_installers_need() -> None:
    made = replace(STABLE_130, yanked='slow "on" <H100>', requires_python=">=3.9,<4", attested=True)
    page = json.loads(simple_pages(catalog(made))["cu130/simple/fa3-fwd/index.json"])
    url = f"../../../pool/fa3-fwd/{made.file.replace('+', '%2B')}"
    assert page == {
        "meta": {"api-version": "1.1"},
        "name": "fa3-fwd",
        "versions": ["3.0.0+cu130"],
        "files": [
            {
                "filename": made.file,
                "url": url,
                "hashes": {"sha256": made.sha256},
                "requires-python": ">=3.9,<4",
                "core-metadata": {"sha256": made.metadata_sha256},
                "yanked": 'slow "on" <H100>',
                "size": made.size,
                "upload-time": "2026-11-22T08:30:15Z",
                "_record": f"{url}.json",
                "_attestation": f"{url}.dsse.json",
            }
        ],
    }


def test_a_file_that_stands_is_not_marked_as_yanked() -> None:
    pages = simple_pages(catalog(STABLE_130))
    assert "yanked" not in files(pages, "all")[0]
    assert b"yanked" not in pages["all/simple/fa3-fwd/index.html"]


def test_a_file_yanked_without_a_reason_is_yanked() -> None:
    pages = simple_pages(catalog(replace(STABLE_130, yanked="")))
    assert files(pages, "all")[0]["yanked"] is True
    assert b'data-yanked=""' in pages["all/simple/fa3-fwd/index.html"]


@pytest.mark.parametrize(
    ("uploaded", "says"),
    [
        ("2026-11-22T08:30:15+00:00", "2026-11-22T08:30:15Z"),
        ("2026-11-22T08:30:15Z", "2026-11-22T08:30:15Z"),
        ("2026-11-22T10:30:15+02:00", "2026-11-22T08:30:15Z"),
        ("2026-11-22T08:30:15", "2026-11-22T08:30:15Z"),
        ("yesterday", None),
    ],
)
def test_upload_times_are_utc_and_one_that_is_none_harms_nothing(uploaded: str, says: str | None) -> None:
    (found,) = files(simple_pages(catalog(replace(STABLE_130, uploaded=uploaded))), "all")
    assert found.get("upload-time") == says


def test_every_shelf_lists_its_projects() -> None:
    other = entry("3.0.0+cu124", project="fa3-jax", file="fa3_jax-3.0.0+cu124-cp39-abi3-linux_x86_64.whl")
    pages = simple_pages(catalog(STABLE_130, other))
    assert json.loads(pages["cu130/simple/index.json"])["projects"] == [{"name": "fa3-fwd"}, {"name": "fa3-jax"}]
    assert json.loads(pages["cu124/simple/index.json"])["projects"] == [{"name": "fa3-jax"}]
    anchors = Anchors(pages["all/simple/index.html"])
    assert [found["href"] for found in anchors.found] == ["fa3-fwd/", "fa3-jax/"]
    assert "cu130/simple/fa3-jax/index.html" in pages
    assert "cu124/simple/fa3-fwd/index.html" not in pages


def test_an_empty_catalog_has_an_empty_list() -> None:
    assert set(simple_pages(catalog())) == {"all/simple/index.html", "all/simple/index.json"}


def test_versions_are_listed_in_order() -> None:
    versions = ["3.0.0+cu130", "3.0.0+cu124", "3.10.0+cu124", "3.9.0+cu124"]
    page = json.loads(simple_pages(catalog(*map(entry, versions)))["all/simple/fa3-fwd/index.json"])
    assert page["versions"] == ["3.0.0+cu124", "3.0.0+cu130", "3.9.0+cu124", "3.10.0+cu124"]


@settings(deadline=None)  # a busy machine is no defect
@given(st.randoms(use_true_random=False))
def test_the_order_of_publishing_and_the_clock_do_not_order_pages(shuffler: random.Random) -> None:
    entries = [STABLE_124, STABLE_130, BOUND_124, BOUND_126, TRIMMED]
    moved = list(entries)
    shuffler.shuffle(moved)
    assert simple_pages(catalog(*moved)) == simple_pages(catalog(*entries))
    times = [datetime.fromtimestamp(shuffler.randrange(2**33), UTC).isoformat() for _ in entries]
    skewed = catalog(*(replace(found, uploaded=at) for found, at in zip(entries, times, strict=True)))
    assert listed(skewed) == listed(catalog(*entries))
    assert [found["filename"] for found in files(simple_pages(skewed), "all")] == sorted(
        found.file for found in entries
    )


@settings(deadline=None)  # a busy machine is no defect
@given(st.text(min_size=1), st.integers(min_value=0, max_value=6))
def test_any_path_survives_its_address(path: str, depth: int) -> None:
    made = address(path, depth)
    assert made.startswith("../" * depth)
    assert unquote(made.removeprefix("../" * depth)) == path
    assert re.fullmatch(r"[A-Za-z0-9._~/%-]*", made)


@settings(deadline=None)  # a busy machine is no defect
@given(st.text(min_size=1))
def test_any_reason_survives_both_forms(reason: str) -> None:
    pages = simple_pages(catalog(replace(STABLE_130, yanked=reason)))
    assert files(pages, "all")[0]["yanked"] == reason
    text = pages["all/simple/fa3-fwd/index.html"].decode()
    (written,) = re.findall(r'data-yanked="([^"]*)"', text)
    assert html.unescape(written) == reason
    assert "<" not in written


@settings(deadline=None)  # a busy machine is no defect
@given(
    st.lists(
        st.sampled_from([STABLE_124, STABLE_130, BOUND_124, BOUND_126, TRIMMED, BOUND_TRIMMED]),
        max_size=6,
        unique=True,
    ),
    st.sampled_from([STABLE_124, STABLE_130, BOUND_124, BOUND_126, TRIMMED, BOUND_TRIMMED]),
)
def test_publishing_more_takes_no_package_from_a_page(entries: list[Entry], added: Entry) -> None:
    before, after = listed(catalog(*entries)), listed(catalog(*{*entries, added}))
    assert before.keys() <= after.keys()
    assert all(set(versions) <= set(after[shelf]) for shelf, versions in before.items())


def test_only_pages_that_list_a_package_change_with_it() -> None:
    before = catalog(STABLE_124, BOUND_124, TRIMMED)
    after = catalog(STABLE_124, replace(BOUND_124, yanked="slow"), TRIMMED)
    old, new = simple_pages(before), simple_pages(after)
    assert {path.partition("/simple/")[0] for path in new if new[path] != old.get(path)} == {
        "all",
        "cu124/torch2.6",
        "cu128/torch2.6",
    }


def test_pages_of_10_000_packages_take_seconds() -> None:
    made = many(10_000)
    begun = time.process_time()
    pages = simple_pages(made)
    assert time.process_time() - begun < 10
    assert len(files(pages, "all")) == 10_000


def test_a_catalog_read_back_gives_the_same_bytes() -> None:
    made = many(200)
    again = Catalog.from_json(made.to_json(), "it")
    assert again == made
    assert simple_pages(again) == simple_pages(made)


@pytest.mark.parametrize(
    ("path", "kind", "lasting"),
    [
        ("index.html", "text/html; charset=utf-8", False),
        ("all/simple/fa3-fwd/index.html", "text/html; charset=utf-8", False),
        ("all/simple/fa3-fwd/index.json", "application/vnd.pypi.simple.v1+json", False),
        ("all/simple/index.json", "application/vnd.pypi.simple.v1+json", False),
        ("packages.json", "application/json", False),
        ("doctor.py", "text/x-python; charset=utf-8", False),
        ("pool/fa3-fwd/a.whl", "application/octet-stream", True),
        ("pool/fa3-fwd/a.whl.metadata", "text/plain; charset=utf-8", True),
        ("pool/fa3-fwd/a.whl.json", "application/json", False),
        ("pool/fa3-fwd/a.whl.dsse.json", "application/json", False),
    ],
)
def test_what_servers_are_told_of_a_file(path: str, kind: str, lasting: bool) -> None:
    assert content_type(path) == kind
    assert ("immutable" in cache_control(path)) == lasting


def test_the_whole_index_has_every_simple_page() -> None:
    made = catalog(STABLE_130)
    assert simple_pages(made).items() <= index_files(made).items()


ENTRIES = [STABLE_124, STABLE_130, BOUND_124, BOUND_126, TRIMMED, BOUND_TRIMMED]


@settings(deadline=None, max_examples=25)  # each makes whole indexes; a busy machine is no defect
@given(st.lists(st.sampled_from(ENTRIES), max_size=5, unique=True), st.sampled_from(ENTRIES))
def test_no_file_of_an_index_ever_goes_for_nothing_removes_it(entries: list[Entry], one: Entry) -> None:
    before = index_files(catalog(*entries)).keys()
    assert before <= index_files(catalog(*{*entries, one})).keys()
    yanked = [replace(entry, yanked="slow") if entry.file == one.file else entry for entry in entries]
    assert before <= index_files(catalog(*yanked)).keys()
