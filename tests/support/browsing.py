"""A headless Chromium, as Debian's packages `chromium` and `chromium-driver` install it."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REASON = "no Chromium to look at the report with: apt-get install chromium chromium-driver, and pip install selenium"


class Browser:
    """What the tests of the report ask of a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before is no concern of this page
        self.driver.get(address)

    def resize(self, width: int, height: int = 900) -> None:
        """Also below the width that Chromium's window can have."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: str, *arguments: object) -> None:
        """Waits for a script to return something true: a change of the address is followed a moment later."""
        deadline = time.monotonic() + 120  # `mark` loads a network before it draws its first mask
        pause = 0.02
        while not self.run(condition, *arguments):
            assert time.monotonic() < deadline, f"waited in vain for {condition}"
            time.sleep(pause)
            pause = min(1.3 * pause, 0.2)  # each question keeps browser and driver from what is waited for

    def press(self, *keys: str) -> None:
        """Presses keys one after another, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def texts(self, selector: str) -> list[str]:
        return self.run("return Array.from(document.querySelectorAll(arguments[0]), e => e.textContent)", selector)

    def console(self) -> list[str]:
        """Every message: errors of scripts, what the policy refused, what could not be loaded."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Addresses that were asked for, pictures within the page left out."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {url for url in sent if not url.startswith(("data:", "about:"))}

    def screenshot(self, path: Path) -> None:
        """The whole page, also what does not fit the window."""
        width, height = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        self.resize(width, min(height, 6000))
        image = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(image["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the browser, or skips the test where there is none."""
    program, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip(REASON)
    try:
        from selenium import webdriver
    except ImportError:
        pytest.skip(REASON)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    # Without a sandbox, as it does not start for root and in many containers; it sees nothing but our own report.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
