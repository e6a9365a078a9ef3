"""The page for people: what is on it, in which order, and that nothing of a catalog becomes markup or leads away."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.index_zoo import PROOF, catalog, cells, entry, many
from tests.unit.page_reader import Element, read_page

from hopperforge.index.catalog import Catalog, Entry, EntryCell, EntryGate, GpuProof, Speed
from hopperforge.index.commands import installation
from hopperforge.index.features import FEATURES, features_of
from hopperforge.index.pages import simple_pages
from hopperforge.index.served import Choices, ranges, served_by
from hopperforge.index.site import site_pages
from hopperforge.index.site_rows import PLACEHOLDER, best_first, make_rows, megabytes, scale_of
from hopperforge.model.versions import CudaVersion, TorchVersion

EVIL = "<script>alert(1)</script>\"'&<!--</style>]]>{{ 7 * 7 }}"


def page(*entries: Entry) -> Element:
    return read_page(site_pages(catalog(*entries))["index.html"])


def packages(read: Element) -> list[Element]:
    return read.all("tbody", class_="package")


def chooser_data(read: Element) -> list[dict[str, Any]]:
    (data,) = read.all("script", id="data")
    found: list[dict[str, Any]] = json.loads(data.text)
    return found


def test_a_row_has_every_value() -> None:
    speeds = tuple(
        Speed(shape=f"batch 4 seqlen 4096 heads 16 head_dim 128 {causal}bfloat16", tflops=tflops)
        for causal, tflops in (("", 643.2), ("causal ", 320.0))
    )
    (row,) = packages(
        page(
            entry(
                "3.0.0+cu130",
                gpu=replace(PROOF, speeds=speeds),
                platform_tags=("manylinux_2_17_x86_64", "manylinux2014_x86_64"),
                attested=True,
                sbom=True,
                reproduced=("another lab", "a third"),
            )
        )
    )
    text = row.text
    for said in (
        "3.0.0+cu130",
        "CUDA 13.0",
        "torch 2.9 to 2.15",
        "Python 3.9 to 3.14",
        "H100, H200",
        "glibc 2.17",
        "driver 580.65.06",
        "27.6 MB",
        "library 105 MB",
        "2 of 2",
        "643 TFLOP/s",
        "89 passed on NVIDIA H200, driver 580.95.05, torch 2.11.0+cu130",
        "2026-11-22",
        "reproduced by 2",
        "the same bytes were made by another lab, a third",
        "unzip -p fa3_fwd-3.0.0+cu130-cp39-abi3-manylinux_2_28_x86_64.whl '*.dist-info/sboms/*'",
        "heads 16 head_dim 128 bfloat16",
        "4 \u00d7 4096, causal",
        "torch 2.9 (CUDA 13.0), 2.11 (CUDA 13.0); Python 3.12",
        "metadata : passed",
    ):
        assert said in text, said
    assert "Unproven" not in text
    assert [bar.attributes["width"] for bar in row.all("rect")] == ["91.9", "91.9", "45.7"]
    links = {link.text: link.attributes["href"] for link in row.all("a")}
    wheel = "pool/fa3-fwd/fa3_fwd-3.0.0%2Bcu130-cp39-abi3-manylinux_2_28_x86_64.whl"
    assert links == {
        "wheel": wheel,
        "record": f"{wheel}.json",
        "signature": f"{wheel}.dsse.json",
        "SBOM": f"#{row.attributes['id']}",
        "cu130": "cu130/simple/",
    }


def test_what_is_not_proven_is_said() -> None:
    gates = (EntryGate(name="metadata", passed=True), EntryGate(name="size", passed=False))
    (row,) = packages(page(entry(gpu=None, unproven=True, gates=gates, platform_tags=("linux_x86_64",))))
    text = row.text
    for said in ("Unproven published although", "1 gate failed", "1 of 2", "not yet", "not reproduced", "unsigned"):
        assert said in text, said
    assert "size : failed" in text
    assert "glibc not known" in text
    assert "Bill of materials none" in text


def test_a_package_without_gates_and_cells_is_shown_as_that() -> None:
    (row,) = packages(page(entry(gates=(), cells=(), torch=None, requires_python=None, gpu=None)))
    assert "no gate was run" in row.text
    assert "torch none" in row.text
    assert "Built for none" in row.text


def test_a_yanked_package_is_marked_and_never_offered() -> None:
    read = page(entry("3.1.0+cu130", yanked="wrong softcap"), entry("3.0.0+cu130"))
    assert [row.all("b")[0].text for row in packages(read)] == ["3.0.0+cu130", "3.1.0+cu130"]
    assert "Yanked wrong softcap" in packages(read)[1].text
    assert [found["version"] for found in chooser_data(read)] == ["3.0.0+cu130"]


def test_yanked_without_a_reason_is_yanked() -> None:
    assert "Yanked no reason given" in packages(page(entry(yanked="")))[0].text


def test_an_index_of_yanked_packages_has_a_page() -> None:
    read = page(entry(yanked="old"))
    assert chooser_data(read) == []
    assert len(packages(read)) == 1


def test_the_lines_are_those_of_the_one_place_that_makes_them() -> None:
    package = entry("3.0.0+cu124torch2.6", torch="torch==2.6.*", cells=cells("2.6", runtime="12.4"))
    (row,) = packages(page(package))
    lines = {line.all("span")[0].text: line.all("code")[0].text for line in row.all("div", class_="line")}
    made = installation(package, PLACEHOLDER, CudaVersion(12, 4), TorchVersion(2, 6))
    assert lines == {"pip": made.pip, "uv": made.uv, "requirement": made.direct}
    assert "%2Bcu124torch2.6" in lines["pip"]
    assert f"#sha256={package.sha256}" in lines["uv"]


def test_the_index_pages_named_are_there_and_list_the_package() -> None:
    index = catalog(
        entry("3.0.0+cu124"),
        entry("3.0.0+cu130"),
        entry("3.0.0+cu124.full", profile="full", default=False),
        entry("3.0.0+cu124torch2.6", torch="torch==2.6.*", cells=cells("2.6", runtime="12.4")),
    )
    pages = simple_pages(index)
    rows = packages(read_page(site_pages(index)["index.html"]))
    named = [(row.all("b")[0].text, link.attributes["href"]) for row in rows for link in row.all("a")]
    shelves = [(version, href) for version, href in named if href.endswith("/simple/")]
    assert {href for _, href in shelves} == {
        "cu124/simple/",
        "cu130/simple/",
        "cu124/full/simple/",
        "cu130/full/simple/",
        "cu124/torch2.6/simple/",
    }
    for version, href in shelves:
        listed = pages[f"{href}fa3-fwd/index.html"].decode()
        assert f"fa3_fwd-{version}-" in listed


def test_profiles_are_compared_feature_by_feature() -> None:
    read = page(
        entry("3.0.0+cu130", switches=("DISABLE_BACKWARD", "DISABLE_FP16", "DISABLE_BRAND_NEW")),
        entry("3.0.0+cu130.full", profile="full", default=False, switches=("ENABLE_VCOLMAJOR",), library_size=2),
        entry("3.1.0+cu130.full", profile="full", default=False, switches=("ENABLE_VCOLMAJOR",)),
    )
    (table,) = read.all("table", class_="features")
    heads, *lines = [[cell.text for cell in row.children if isinstance(cell, Element)] for row in table.all("tr")]
    assert [head.split(" ")[0] for head in heads] == ["Feature", "fa3-fwd", "full"]
    assert "0.01 MB to 105 MB" in heads[2]
    found = {line[0]: line[1:] for line in lines}
    assert found["Forward pass in bfloat16"] == ["yes", "yes"]
    assert found["Backward pass, for training"] == ["no", "yes"]
    assert found["float8 values in column-major order"] == ["no", "yes"]
    assert found["Paged KV cache page_table"] == ["yes", "yes"]
    assert found["DISABLE_BRAND_NEW"] == ["no", "yes"]
    assert len(found) == len(FEATURES) + 2


def test_a_profile_whose_switches_changed_is_described_twice() -> None:
    read = page(entry("3.0.0+cu130"), entry("3.1.0+cu130", switches=()))
    (table,) = read.all("table", class_="features")
    assert len(table.all("tr")[0].all("th")) == 3


def test_every_switch_is_a_feature_once() -> None:
    assert len({feature.switch for feature in FEATURES}) == len(FEATURES)
    assert features_of(["DISABLE_FP8", "OTHER"])[-1].name == "OTHER"


@pytest.mark.parametrize(
    ("package", "cudas", "torches", "pythons"),
    [
        (entry("3.0.0+cu124"), "12.4 12.8 13.0", "2.9 2.15", "3.9 3.14"),
        (entry("3.0.0+cu130", requires_python=">=3.9,<3.13"), "13.0", "2.9 2.15", "3.9 3.12"),
        (entry("3.0.0+cu124torch2.6", torch="torch==2.6.*", cells=cells("2.6", runtime="12.4")), "12.4 12.8", "2.6", 0),
        (entry("3.0.0+cu128", torch="not a requirement"), "12.8 13.0", "2.9 2.11", 0),
        (entry("3.0.0+cu130", torch=None, requires_python="nonsense"), "13.0", "2.9 2.11", "3.12"),
        (entry("3.0.0+cu130", cells=cells("3.0")), "13.0", "2.9 3.0", 0),
    ],
)
def test_whom_a_package_serves(package: Entry, cudas: str, torches: str, pythons: str | int) -> None:
    others = [entry(f"1.0.0+{label}", cells=()) for label in ("cu124", "cu128", "cu130")]
    served = served_by(package, Choices.of(catalog(package, *others)))
    assert " ".join(served.cudas) == cudas
    assert " ".join(dict.fromkeys([served.torches[0], served.torches[-1]])) == torches
    if pythons:
        assert " ".join(dict.fromkeys([served.pythons[0], served.pythons[-1]])) == pythons


@pytest.mark.parametrize(
    ("values", "text"),
    [("", ""), ("b", "b"), ("a b", "a to b"), ("a c", "a, c"), ("d a b", "a to b, d"), ("a b c d", "a to d")],
)
def test_ranges(values: str, text: str) -> None:
    assert ranges(values.split(), ["a", "b", "c", "d"]) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.01 MB"),
        (423_468, "0.42 MB"),
        (1_457_912, "1.46 MB"),
        (27_600_000, "27.6 MB"),
        (105_000_000, "105 MB"),
        (1_100_000_000, "1100 MB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert megabytes(size) == text


def test_bars_share_one_scale() -> None:
    def with_speed(version: str, tflops: float) -> Entry:
        return entry(version, gpu=replace(PROOF, speeds=(Speed(shape="some shape", tflops=tflops),)))

    index = catalog(with_speed("3.0.0+cu130", 701.0), with_speed("3.0.0+cu124", 400.0))
    assert scale_of(index) == 800
    widths = [bar.attributes["width"] for bar in read_page(site_pages(index)["index.html"]).all("rect")]
    assert widths == ["87.6", "87.6", "50.0", "50.0"]
    assert scale_of(catalog()) == 100


def test_speeds_of_different_shapes_say_all_of_each() -> None:
    speeds = tuple(
        Speed(shape=f"batch 4 seqlen 4096 heads {heads} head_dim 128", tflops=500.0 + heads) for heads in (16, 32)
    )
    (row,) = packages(page(entry(gpu=replace(PROOF, speeds=speeds))))
    assert "4 \u00d7 4096, heads 16 head_dim 128" in row.text
    assert "4 \u00d7 4096, heads 32 head_dim 128" in row.text


def test_a_proof_without_speeds_is_a_proof() -> None:
    (row,) = packages(page(entry(gpu=replace(PROOF, speeds=()))))
    assert "89 passed on NVIDIA H200" in row.text
    assert row.all("rect") == []


def test_the_best_is_first() -> None:
    best = [
        entry("3.1.0+cu130"),
        entry("3.1.0+cu124"),
        entry("3.1.0+cu124torch2.8", torch="torch==2.8.*", cells=cells("2.8", runtime="12.8")),
        entry("3.0.10+cu130"),
        entry("3.0.9+cu130"),
        entry("3.2.0+cu130", unproven=True),
    ]
    index = catalog(*best)
    rows = make_rows(index, Choices.of(index))
    assert [row.entry for row in best_first(rows)] == best
    assert [row.all("b")[0].text for row in packages(page(*best))] == [found.version for found in best]


def test_the_default_profile_is_first_and_projects_are_apart() -> None:
    read = page(
        entry("3.0.0+cu130.all", profile="all", default=False),
        entry("3.0.0+cu130", project="other", file="other-3.0.0+cu130-py3-none-any.whl"),
        entry("3.0.0+cu130"),
    )
    names = [f"{row.all('small')[0].text} {row.all('th')[0].all('span')[0].text}" for row in packages(read)]
    assert names == ["fa3-fwd fa3-fwd", "fa3-fwd all", "other fa3-fwd"]


def test_the_chooser_asks_what_matters() -> None:
    def asked(*entries: Entry) -> dict[str, list[str]]:
        return {
            field.attributes["data-key"]: [one.attributes["value"] for one in field.all("input")]
            for field in page(*entries).all("fieldset")
        }

    one = asked(entry("3.0.0+cu130"))
    assert list(one) == ["cuda", "torch", "python", "gpu", "profile"]
    assert one["torch"] == [f"2.{minor}" for minor in range(9, 16)]
    both = asked(
        entry("3.0.0+cu124", architectures=("sm_80", "sm_90a")),
        entry(
            "3.0.0+cu130",
            project="fa3-jax",
            platform_tags=("manylinux_2_28_aarch64",),
            profile="all",
            architectures=("sm_100",),
        ),
    )
    assert list(both) == ["project", "cuda", "torch", "python", "gpu", "machine", "profile"]
    assert both["machine"] == ["aarch64", "x86_64"]
    assert both["gpu"] == ["H100, H200", "A100", "sm_100"]


def test_the_chooser_begins_where_something_fits() -> None:
    read = read_page(site_pages(many(198))["index.html"])
    start = {one.attributes["name"]: one.attributes["value"] for one in read.all("input", checked="")}
    assert start == {"cuda": "13.5", "torch": "2.15", "python": "3.14", "gpu": "H100, H200", "profile": "fa3-fwd"}
    fitting = [
        found["version"]
        for found in chooser_data(read)
        if all(answer in found["answers"][key] for key, answer in start.items())
    ]
    assert fitting[0] == "3.0.6+cu135"


def test_the_chooser_holds_no_package_that_could_never_be_picked() -> None:
    read = read_page(site_pages(many(1000))["index.html"])
    assert len(packages(read)) == 1000
    assert len(chooser_data(read)) == 33
    assert {found["version"].partition("+")[0] for found in chooser_data(read)} == {"3.0.31", "3.0.30"}


def test_the_chooser_prefers_what_is_proven_and_says_what_is_not() -> None:
    read = page(entry("3.1.0+cu130", unproven=True), entry("3.0.0+cu130"))
    assert [found["version"] for found in chooser_data(read)] == ["3.0.0+cu130"]
    assert chooser_data(page(entry("3.1.0+cu130", unproven=True)))[0]["unproven"] is True


def test_every_row_of_the_chooser_is_on_the_page() -> None:
    read = read_page(site_pages(many(100))["index.html"])
    anchors = [row.attributes["id"] for row in packages(read)]
    assert len(set(anchors)) == len(anchors)
    assert {found["row"] for found in chooser_data(read)} <= set(anchors)


def test_an_empty_index_says_so() -> None:
    read = page()
    assert "Nothing is published here yet" in read.text
    assert read.all("form") == read.all("table") == []
    assert chooser_data(read) == []


def test_equal_catalogs_give_equal_pages() -> None:
    index = many(60)
    assert site_pages(index) == site_pages(Catalog.of(reversed(index.packages)))
    assert site_pages(index) == site_pages(Catalog.from_json(index.to_json(), "packages.json"))
    assert list(site_pages(index)) == ["index.html"]


def evil_entry() -> Entry:
    """An entry with markup in every text that need not be a version."""
    return entry(
        project=EVIL,
        file=EVIL,
        sha256=EVIL,
        metadata_sha256=EVIL,
        requires_python=EVIL,
        platform_tags=(EVIL,),
        recipe=EVIL,
        profile=EVIL,
        switches=(EVIL,),
        architectures=(EVIL,),
        driver=EVIL,
        torch=EVIL,
        cells=(EntryCell(torch="2.9", python="3.12", platform=EVIL, runtime="13.0"),),
        gates=(EntryGate(name=EVIL, passed=True),),
        gpu=GpuProof(gpu=EVIL, driver=EVIL, torch=EVIL, passed=1, speeds=(Speed(shape=EVIL, tflops=1.0),)),
        commit=EVIL,
        created=EVIL,
        uploaded=EVIL,
        yanked=EVIL,
        reproduced=(EVIL,),
        requires=(EVIL,),
        tarball=EVIL,
    )


VERSIONS = {"version", "toolkit", "abi"}
NO_TEXT = {"size", "library_size", "default", "unproven", "attested", "sbom"}


def test_the_evil_entry_has_markup_in_every_text() -> None:
    evil = evil_entry()
    plain = {
        name
        for name in Entry.__dataclass_fields__
        if EVIL not in str(getattr(evil, name)).replace("\\'", "'").replace('\\"', '"')
    }
    assert plain == VERSIONS | NO_TEXT


@pytest.mark.parametrize("yanked", [EVIL, None])
def test_no_text_of_a_catalog_becomes_markup(yanked: str | None) -> None:
    evil = replace(evil_entry(), yanked=yanked)
    honest = page(replace(entry(), yanked=yanked and "x", attested=True, reproduced=("x",)))
    data = site_pages(catalog(replace(evil, attested=True)))["index.html"]
    read = read_page(data)
    assert [found.name for found in read.walk()].count("script") == [x.name for x in honest.walk()].count("script") == 2
    assert b"<script>alert" not in data
    assert read.text.count("<script>alert(1)</script>\"'&<!--</style>]]>{{ 7 * 7 }}") > 10
    allowed = {name for found in honest.walk() for name in found.attributes}
    assert {name for found in read.walk() for name in found.attributes} == allowed
    for found in read.walk():
        assert not any(name.startswith("on") or name == "style" for name in found.attributes)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": EVIL},
        {"toolkit": EVIL},
        {"cells": (EntryCell(torch=EVIL, python="3.12", platform="linux_x86_64", runtime="13.0"),)},
        {"cells": (EntryCell(torch="2.9", python=EVIL, platform="linux_x86_64", runtime="13.0"),)},
        {"cells": (EntryCell(torch="2.9", python="3.12", platform="linux_x86_64", runtime=EVIL),)},
    ],
    ids=["version", "toolkit", "torch", "python", "runtime"],
)
def test_what_must_be_a_version_and_is_none_makes_no_page(changes: dict[str, Any]) -> None:
    good = entry()
    with pytest.raises(ValueError, match="script"):
        site_pages(catalog(replace(good, **changes)))


def test_nothing_on_the_page_leads_away() -> None:
    data = site_pages(many(60))["index.html"].decode()
    assert set(re.findall(r"\w+://[^/\s\"'<)]+", data)) == {PLACEHOLDER, "http://www.w3.org"}  # a namespace, not a link
    assert data.count("http://www.w3.org") == data.count("xmlns='http://www.w3.org/2000/svg'") == 1
    read = read_page(data.encode())
    assert [found for found in read.walk() if "src" in found.attributes or "action" in found.attributes] == []
    links = {found.attributes["href"] for found in read.walk() if "href" in found.attributes}
    assert [link for link in links if link.startswith(("/", "http", "//")) or ":" in link.partition("/")[0]] == [
        link for link in links if link.startswith("data:image/svg+xml,")
    ]
    assert read.all("iframe") == read.all("object") == read.all("img") == []


def test_the_policy_allows_the_style_and_the_script_on_the_page_and_no_others() -> None:
    read = page(entry())
    (policy,) = read.all("meta", **{"http-equiv": "Content-Security-Policy"})

    def source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    (style,) = read.all("style")
    script = read.all("script")[-1]
    assert policy.attributes["content"].split("; ") == [
        "default-src 'none'",
        f"style-src {source(''.join(map(str, style.children)))}",
        f"script-src {source(''.join(map(str, script.children)))}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    (head,) = read.all("head")
    assert [child.name for child in head.children if isinstance(child, Element)][:2] == ["meta", "meta"]


def test_the_page_is_one_that_a_reader_of_screens_can_use() -> None:
    read = page(entry(), entry("3.0.0+cu124"))
    (html,) = read.all("html")
    assert html.attributes["lang"] == "en"
    assert [len(read.all(name)) for name in ("h1", "main", "header", "footer", "nav")] == [1, 1, 1, 1, 1]
    names = {found.attributes["id"] for found in read.walk() if "id" in found.attributes}
    for attribute in ("aria-labelledby", "aria-describedby", "for"):
        pointed = {found.attributes[attribute] for found in read.walk() if attribute in found.attributes}
        assert pointed <= names, attribute
    anchors = {found.attributes["href"][1:] for found in read.all("a") if found.attributes["href"].startswith("#")}
    assert anchors <= names
    for table in read.all("table"):
        assert next(child.name for child in table.children if isinstance(child, Element)) == "caption"
    assert [found.attributes.get("scope") for found in read.all("th") if "scope" not in found.attributes] == []
    assert len(read.all("p", role="status")) == 2
