"""A real browser for tests: `browser`, and `new_page` for one more person at a computer.

tests/conftest.py hands them to all tests. A page that breaks our Content-Security-Policy, or
whose script fails, fails the test that opened it.

With PICTURES=docs/images the docs' pictures are made anew, by tests that come to what they show.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Generous: a machine may be busy. What is waited for costs nothing when all is well.
DEADLINE_MS = 90_000

PICTURES = os.environ.get("PICTURES", "")

NewPage = Callable[..., Page]


def _problem(error: str) -> list[str]:
    """What went wrong in a page's script; nothing for a view transition that was overtaken.

    Chromium reports those as errors when the next page comes before the last one faded in.
    """
    return [] if "ransition was" in error else [f"script failed: {error}"]


def picture(what: Page | Locator, name: str) -> None:
    """Keep a picture for the docs, if somebody asked for them."""
    if PICTURES:
        what.screenshot(path=Path(PICTURES) / name)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, with a fresh profile."""
    # Playwright's sync API runs an event loop in this thread, and Django then refuses to talk to
    # the database from it. Here that is harmless: the loop belongs to Playwright alone.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=2 * DEADLINE_MS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Open a page in a browser context of its own: cookies and all are another person's.

    Takes the options of Playwright's `Browser.new_context`.
    """
    pages: list[Page] = []
    problems: list[str] = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(DEADLINE_MS)
        page = context.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: problems.extend(_problem(str(error))))
        page.on(
            "console",
            lambda said: problems.append(said.text) if "Content Security" in said.text else None,
        )
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """One person's browser."""
    return new_page()
