"""The API's page in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
        browser = await playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield await browser.new_page()
        await browser.close()


async def test_the_page_lists_the_calls_and_asks_nothing_of_other_hosts(url: str, page: Page) -> None:
    asked: list[str] = []
    faults: list[Any] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda fault: faults.append(fault))  # noqa: PLW0108 - a built-in method cannot be wrapped

    await page.goto(f"{url}/docs/")
    await page.get_by_text("List anomalies, newest first").wait_for(timeout=60_000)

    assert await page.get_by_role("button", name="Authorize").count() == 1
    assert [address for address in asked if not address.startswith((url, "data:"))] == []
    assert faults == []
