"""Debian's Chromium, headless, driven by Playwright; nothing of it is downloaded."""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Dialog, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP index.test 127.0.0.1",  # an address that is not loopback by name is no secure one
)
PATIENCE = 15_000  # milliseconds: the machine has other things to do


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium with a new empty profile, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, address: str, *, width: int = 1280, **context: Any) -> Iterator[Page]:
    """Show a page in a window of its own; anything it complains about, asks for or pops up is an error."""
    complaints: list[str] = []
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    made = browser.new_context(viewport={"width": width, "height": 800}, **context)
    made.set_default_timeout(PATIENCE)
    page = made.new_page()
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", refuse)
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(address)
        yield page
    finally:
        made.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [address.partition("#")[0]]
