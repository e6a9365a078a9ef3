"""The page for people in a real browser: choosing, copying, filtering, narrow, dark, by keyboard, without script."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.integration.browser import opened, running_browser
from tests.integration.serving import serving
from tests.unit.index_zoo import catalog, cells, entry, many
from tests.unit.test_site import evil_entry

from hopperforge.index.catalog import Catalog
from hopperforge.index.commands import installation
from hopperforge.index.site import site_pages
from hopperforge.index.site_rows import PLACEHOLDER
from hopperforge.model.versions import CudaVersion, TorchVersion

pytestmark = pytest.mark.integration

LATER = cells("2.9", "2.10", "2.11", "2.12", "2.13", "2.14", "2.15")
STABLE = entry("3.0.0+cu124", cells=LATER, attested=True, sbom=True, reproduced=("another lab",))
NEWEST = entry("3.0.0+cu130", cells=LATER)
BOUND = entry("3.0.0+cu124torch2.6", torch="torch==2.6.*", cells=cells("2.6", runtime="12.4"), unproven=True)
SMALL = entry("3.0.0+cu124.hdim128.bf16", cells=LATER, profile="hdim128-bf16", default=False, gpu=None)
OLD = entry("2.9.0+cu124", cells=LATER, yanked="softcap was ignored with split keys; take 3.0.0")
TYPICAL = catalog(STABLE, NEWEST, BOUND, SMALL, OLD)
ODD = "it's $(touch odd) &c"


def write(folder: Path, published: Catalog) -> None:
    """Write the page of an index."""
    folder.mkdir(exist_ok=True)
    for name, data in site_pages(published).items():
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Several indexes served by the real command, each in a folder below the first."""
    home = tmp_path_factory.mktemp("site")
    folder = home / "index"
    write(folder, TYPICAL)
    write(folder / "evil", catalog(replace(evil_entry(), yanked=None), NEWEST))
    write(folder / "empty", catalog())
    write(folder / "many", many(1500))
    write(folder / ODD, TYPICAL)
    with serving(folder, home) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


def lines(page: Page, place: str = "#answer") -> dict[str, str]:
    found = page.locator(f"{place} .line")
    return {one.locator(".tool").inner_text(): one.locator("code").inner_text() for one in found.all()}


def choose(page: Page, **answers: str) -> None:
    for key, answer in answers.items():
        page.locator(f"fieldset[data-key={key}] label", has_text=re.compile(f"^{re.escape(answer)}$")).click()


def shown(page: Page) -> list[str]:
    return [found.inner_text() for found in page.locator("tbody.package th[scope=row] > b:visible").all()]


def test_choosing_shows_the_lines_of_that_package(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu130")
        choose(page, cuda="12.4", torch="2.11", python="3.12")
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124")
        made = installation(STABLE, address, CudaVersion(12, 4), TorchVersion(2, 11))
        assert lines(page) == {"pip": made.pip, "uv": made.uv, "requirement": made.direct}
        assert STABLE.sha256 in made.pip
        expect(page.locator("#said")).to_have_text("fa3-fwd 3.0.0+cu124 serves these.")
        for said in ("glibc 2.28", "2 of 2", "643 TFLOP/s"):
            expect(page.locator("#answer")).to_contain_text(said)
        choose(page, torch="2.6")
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124torch2.6")
        expect(page.locator("#answer")).to_contain_text("Unproven")
        choose(page, torch="2.9", profile="hdim128-bf16")
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124.hdim128.bf16")


def test_answers_that_nothing_has_together_are_named_and_mended(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        choose(page, cuda="13.0", torch="2.6")
        expect(page.locator("#answer h3")).to_have_text("Nothing here serves these together")
        expect(page.locator("#said")).to_contain_text("Nothing here serves these together")
        assert lines(page) == {}
        offers = [found.inner_text() for found in page.locator("#answer li").all()]
        assert [" ".join(text.split()) for text in offers] == [
            "With another CUDA: 12.4",
            "With another torch: 2.9 2.10 2.11 2.12 2.13 2.14 2.15",
        ]
        page.get_by_role("button", name="12.4").click()
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124torch2.6")


def test_answers_that_lead_nowhere_are_marked_for_eyes_and_ears(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        choose(page, cuda="13.0", torch="2.11")
        bound = page.locator("input[name=torch][value='2.6']")
        assert bound.get_attribute("aria-describedby") == "none-fits"
        expect(page.locator("label", has=bound)).to_have_class("none")
        choose(page, cuda="12.4")
        assert bound.get_attribute("aria-describedby") is None


def test_an_address_holds_the_answers(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}#cuda=12.4&torch=2.6&python=3.10&nonsense=1") as page:
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124torch2.6")
        choose(page, torch="2.12")
        assert "torch=2.12" in page.evaluate("location.hash")
        page.evaluate("location.hash = '#cuda=13.0&torch=2.10'")
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu130")


def test_an_address_holds_a_package(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}#sha256-{SMALL.sha256[:16]}") as page:
        expect(page.locator("tbody.package details[open]")).to_have_count(1)
        expect(page.locator("tbody.package details[open]")).to_contain_text(SMALL.file)
        page.get_by_role("link", name="Its gates, speeds and record").click()
        expect(page.locator("tbody.package details[open]")).to_have_count(2)


def paste(page: Page) -> str:
    """What a user would get who pastes now."""
    page.locator("#filter").fill("")
    page.locator("#filter").press("Control+v")
    return page.locator("#filter").input_value()


@pytest.mark.parametrize("host", ["127.0.0.1", "index.test"], ids=["secure", "not-secure"])
def test_copying(browser: Browser, address: str, host: str) -> None:
    reached = address.replace("127.0.0.1", host)
    with opened(browser, reached) as page:
        assert page.evaluate("isSecureContext") == (host == "127.0.0.1")
        choose(page, cuda="12.4", torch="2.9")
        made = installation(STABLE, reached, CudaVersion(12, 4), TorchVersion(2, 9))
        for tool, line in (("pip", made.pip), ("uv", made.uv), ("requirement", made.direct)):
            button = page.locator("#answer").get_by_role("button", name=f"Copy the {tool} line", exact=True)
            button.click()
            expect(page.locator("#said")).to_have_text(f"The {tool} line is copied.")
            expect(page.locator("#answer button.done").last).to_have_text(re.compile("^Copied"))
            assert paste(page) == line
        expect(page.locator("#answer button.done")).to_have_count(0)


def test_the_doctors_line_is_for_this_index(browser: Browser, address: str) -> None:
    root = address.rstrip("/")
    with opened(browser, address) as page:
        page.get_by_role("button", name="Copy the doctor line", exact=True).click()
        expect(page.locator("#said")).to_have_text("The doctor line is copied.")
        assert paste(page) == f"curl -fsSO {root}/doctor.py && python3 doctor.py --index {root}"


def test_copying_where_no_clipboard_is_to_be_had_selects_the_line(browser: Browser, address: str) -> None:
    with opened(browser, address.replace("127.0.0.1", "index.test")) as page:
        page.evaluate("document.execCommand = () => false")
        page.locator("#answer .line button").first.click()
        expect(page.locator("#said")).to_have_text("The pip line could not be copied; it is selected.")
        assert page.evaluate("getSelection().toString()") == lines(page)["pip"]


def test_filtering(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        everything = shown(page)
        assert len(everything) == 5
        page.locator("#filter").fill("HDIM128  cu124")
        assert shown(page) == ["3.0.0+cu124.hdim128.bf16"]
        expect(page.locator("#count")).to_have_text("1 of 5 packages")
        for text, versions in {
            "torch 2.6": ["3.0.0+cu124torch2.6"],
            "yanked": ["2.9.0+cu124"],
            "unproven": ["3.0.0+cu124torch2.6"],
            "2.9.0": ["2.9.0+cu124"],
            ".9.0": ["2.9.0+cu124"],
            "9.0": [],
            "(": [],
            "signed 13.0 reproduced by 1": ["3.0.0+cu124"],
            NEWEST.sha256: ["3.0.0+cu130"],
            NEWEST.file: ["3.0.0+cu130"],
            "nothing-of-the-kind": [],
        }.items():
            page.locator("#filter").fill(text)
            assert shown(page) == versions, text
        expect(page.locator("#no-match")).to_be_visible()
        expect(page.locator("#count")).to_have_text("0 of 5 packages")
        page.locator("#filter").press("Escape")
        assert shown(page) == everything
        expect(page.locator("#count")).to_have_text("5 packages")
        expect(page.locator("#no-match")).to_be_hidden()


def open_everything(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((found) => { found.open = true; })")


WIDE = """[...document.querySelectorAll('main *:not(.scroll *):not(thead *):not(.hidden):not(.hidden *)')]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("where", ["", "evil/", "empty/"])
def test_no_width_scrolls_sideways(browser: Browser, address: str, where: str) -> None:
    with opened(browser, address + where) as page:
        open_everything(page)
        for width in (320, 390, 768, 1000, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(WIDE) == [], width
            assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_the_rules_of_accessibility_hold(browser: Browser, address: str, scheme: str, width: int) -> None:
    with opened(browser, address, width=width, color_scheme=scheme, reduced_motion="reduce") as page:
        open_everything(page)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        choose(page, cuda="13.0", torch="2.6")
        found = Axe().run(page, "#choose")
        assert found.violations_count == 0, found.generate_report()
    with opened(browser, f"{address}empty/", width=width, color_scheme=scheme) as page:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_the_rules_of_accessibility_would_be_seen_broken(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.evaluate("document.querySelector('.filter').innerHTML = '<input>'")
        page.evaluate("document.querySelector('.lead').style.color = '#ddd'")
        broken = {found["id"] for found in Axe().run(page).response["violations"]}
        assert {"label", "color-contrast"} <= broken


def test_dark_and_light_follow_the_reader(browser: Browser, address: str) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        with opened(browser, address, color_scheme=scheme) as page:
            found[scheme] = page.evaluate(paper)
    assert found == {"light": "rgb(250, 248, 244)", "dark": "rgb(22, 20, 18)"}


def test_by_keyboard_alone(browser: Browser, address: str) -> None:
    focused = "document.activeElement.textContent || document.activeElement.value"
    with opened(browser, address) as page:
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Skip to the packages"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "filter"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "wheel"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Commands and evidence of fa3-fwd 3.0.0+cu130"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("tbody.package button")).to_have_count(3)
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Copy the pip line"
        page.locator("input[name=cuda]:checked").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#answer h3")).to_have_text("fa3-fwd 3.0.0+cu124")
        outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
        assert page.evaluate(outline) == "solid"


@pytest.mark.parametrize("width", [320, 1280])
def test_without_script_it_is_a_whole_table(browser: Browser, address: str, width: int) -> None:
    with opened(browser, address, width=width, java_script_enabled=False) as page:
        assert len(shown(page)) == 5
        expect(page.locator(".chooser")).to_be_hidden()
        expect(page.locator(".filter")).to_be_hidden()
        expect(page.locator("button")).to_have_count(0)
        expect(page.locator(".without-script")).to_contain_text(f"in place of {PLACEHOLDER}")
        row = page.locator(f"#sha256-{STABLE.sha256[:16]}")
        row.locator("summary").click()
        made = installation(STABLE, PLACEHOLDER, CudaVersion(12, 4), TorchVersion(2, 9))
        found = lines(page, f"#sha256-{STABLE.sha256[:16]}")
        assert found == {"pip": made.pip, "uv": made.uv, "requirement": made.direct}
        expect(row.locator("code").first).to_be_visible()
        expect(row.get_by_text("another lab")).to_be_visible()


def test_markup_in_a_catalog_runs_nothing(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}evil/") as page:
        open_everything(page)
        assert len(shown(page)) == 2
        page.locator("fieldset[data-key=profile] label").last.click()
        page.locator("fieldset[data-key=project] label").first.click()
        page.locator("#filter").fill("<script>")
        assert len(shown(page)) == 1
        assert page.locator("script").count() == 2


def test_a_shell_reads_the_line_as_it_is_meant_wherever_the_index_is(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    reached = address + quote(ODD, safe="'$()&") + "/"
    with opened(browser, reached) as page:
        line = lines(page)["pip"]
    *command, requirement = shlex.split(line)
    assert command == ["pip", "install", "--no-deps"]
    assert requirement.startswith(f"fa3-fwd @ {address}it%27s%20%24%28touch%20odd%29%20%26c/pool/fa3-fwd/")
    said = subprocess.run(
        ["bash", "-c", f"pip() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == ["install", "--no-deps", requirement]
    assert list(tmp_path.iterdir()) == []


def test_many_packages_are_still_quick(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}many/") as page:
        expect(page.locator("#count")).to_have_text("1500 packages")
        spent = page.evaluate("""() => {
          const start = performance.now();
          const filter = document.getElementById("filter");
          filter.value = "cu124 2.6 3.0.7";
          filter.dispatchEvent(new Event("input"));
          document.body.getBoundingClientRect();
          return performance.now() - start;
        }""")
        assert shown(page) == ["3.0.7+cu124torch2.6"]
        assert spent < 3000


def test_the_page_does_not_depend_on_the_order_of_sets() -> None:
    program = (
        "import hashlib; from tests.unit.index_zoo import many; from hopperforge.index.site import site_pages; "
        "print(hashlib.sha256(site_pages(many(100))['index.html']).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(digests) == 1
