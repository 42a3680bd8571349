"""The report of `rts-batch review` as a reader sees it, in a headless Chromium."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rts_batch.review.report import review_run
from tests.support.browsing import Browser, chromium
from tests.support.run_folders import Video, moving_squares, write_run
from tests.support.videos import make_video

pytestmark = pytest.mark.browser

HOSTILE = "\"><img src=x onerror='window.hacked=1'><script>window.hacked=2</script>{{ 7*7 }}"
LONG = "a-very-long-name-without-any-place-to-break-it-" * 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of everything: good and lost videos, hostile and long names, failures, a video gone, 300 targets."""
    folder = tmp_path_factory.mktemp("report")
    clip = folder / "clip.mp4"
    make_video(clip, 12, size=(60, 40))
    videos = []
    for number in range(12):
        masks = np.zeros((12, 1, 40, 60), bool)
        masks[: 12 - number, :, 10:20, 10 : 20 + number] = True
        videos.append(Video(f"clip {number}", str(clip), masks, {1: "thing"}))
    masks = moving_squares(12, 2)
    videos += [
        Video(HOSTILE, str(clip), masks, {1: HOSTILE, 2: None}),
        Video(LONG, str(clip), masks, {1: LONG, 2: None}),
        Video("gone", str(folder / "gone.mp4"), masks, {1: None, 2: None}),
        Video("crowd", str(clip), moving_squares(12, 300), dict.fromkeys(range(1, 301))),
    ]
    run = folder / "run"
    tasks = write_run(run, videos)
    for name in ("failed", "videos"):
        (run / name).mkdir()
    for number, (video_id, task) in enumerate(tasks.items()):
        about = {"video_id": video_id, "frames": 12, "seconds": 0.5 + number, "worker": HOSTILE, "warnings": [HOSTILE]}
        content = about | {"decoder": "decord", "frames_per_second": round(12 / (0.5 + number), 2), "attempt": 1}
        (run / "videos" / f"{task.key}.json").write_text(json.dumps(content))
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\n' + "x" * 300 + "\nValueError: " + HOSTILE
    attempts = [{"error": "ValueError", "message": trace, "kind": "crash"}]
    failed = {"video_id": HOSTILE, "uri": HOSTILE, "attempts": attempts * 3}
    (run / "failed" / "one.json").write_text(json.dumps(failed))
    (run / "failed" / "two.json").write_text(json.dumps({"video_id": LONG, "attempts": []}))
    settings = {"weights": HOSTILE, "tracker": {"rules": "code", LONG: LONG}}
    (run / "run.json").write_text(json.dumps({"format": 1, "results": settings, "environment": {"device": "cpu"}}))
    speed = {"frames": 192, "seconds": 12.5, "frames_per_second": 15.36, "weights": HOSTILE, "warnings": [HOSTILE] * 3}
    (run / "summary.json").write_text(json.dumps(speed))
    found = review_run(str(run), overlays=["clip 3"])
    assert found.report is not None
    return Path(found.report)


@pytest.fixture(scope="module")
def bucket(report: Path) -> Iterator[str]:
    """The address of the report on a server of static files, as a bucket is one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(report.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/report.html"
        server.shutdown()


def pages(browser: Browser) -> list[str]:
    return browser.run("return Array.from(document.querySelectorAll('.page'), page => '#' + page.id)")


def visible(browser: Browser, selector: str) -> bool:
    return browser.run("return document.querySelector(arguments[0]).checkVisibility()", selector)


def column(browser: Browser, name: str) -> list[str]:
    script = """
        const heads = Array.from(document.querySelectorAll('#table thead th'), head => head.textContent.trim());
        return Array.from(document.querySelectorAll('#table tbody tr'),
                          row => row.cells[heads.indexOf(arguments[0])].textContent.trim());
    """
    return browser.run(script, name)


def head(browser: Browser, name: str) -> str | None:
    script = """
        const heads = Array.from(document.querySelectorAll('#table thead th'));
        return heads.find(head => head.textContent.trim() === arguments[0]).getAttribute('aria-sort');
    """
    return browser.run(script, name)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_nothing_is_asked_for_and_nothing_complained_about(
    browser: Browser, report: Path, bucket: str, place: str
) -> None:
    address = report.as_uri() if place == "disk" else bucket
    browser.open(address)
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true")
    loaded = """
        location.hash = arguments[0];
        const images = Array.from(document.querySelectorAll(arguments[0] + ' img'));
        return Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)));
    """
    for fragment in pages(browser):
        assert min(browser.run(loaded, fragment), default=0) > 0
    assert browser.console() == []
    assert browser.requests() == {address}


def test_hostile_text_is_text(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri())
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.scripts.length") == 1
    assert browser.run("return document.querySelectorAll('img:not([src^=\"data:image/webp;base64,\"])').length") == 0
    assert HOSTILE in column(browser, "Video")
    assert HOSTILE in browser.texts(".page h2")
    assert any(HOSTILE in text for text in browser.texts("pre"))
    assert HOSTILE in browser.texts(".category")


def test_the_policy_lets_nothing_else_run(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri())
    (policy,) = browser.run(
        "return Array.from(document.querySelectorAll('meta[http-equiv=Content-Security-Policy]'), m => m.content)"
    )
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    browser.run("""
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 3';
        document.body.append(script);
        const button = document.createElement('div');
        document.body.append(button);
        button.innerHTML = '<p onclick="window.hacked = 4" style="color: red">x</p><img src="https://example.org/x.png">';
        button.firstChild.click();
        fetch('https://example.org/').catch(() => {});
    """)
    assert browser.run("return window.hacked") is None
    assert browser.run("return getComputedStyle(document.body.lastChild.firstChild).color") != "rgb(255, 0, 0)"
    refused = [message for message in browser.console() if "Content Security Policy" in message]
    assert len(refused) >= 4
    assert browser.requests() <= {report.as_uri(), "https://example.org/x.png"}  # named, refused before it is sent


def test_sorting_by_click(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri())
    assert column(browser, "Rank") == [str(number) for number in range(1, 17)]
    click = """
        const heads = Array.from(document.querySelectorAll('#table thead button'));
        heads.find(button => button.textContent.trim() === arguments[0]).click();
    """
    for name in ("Lost %", "Targets", "Frames/s"):
        values = []
        for direction in ("ascending", "descending"):
            browser.run(click, name)
            assert head(browser, name) == direction
            assert browser.run("return document.querySelectorAll('[aria-sort]').length") == 1
            values.append([float(value) for value in column(browser, name)])
            assert values[-1] == sorted(values[-1], reverse=direction == "descending")
        assert values[0] != values[1]
    browser.run(click, "Video")
    named = [name for name in column(browser, "Video") if name.startswith("clip")]
    assert named == [f"clip {number}" for number in range(12)]  # 10 after 9
    assert "Sorted by Video, ascending" in browser.texts("#sorted")


def test_long_tables_show_a_part(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri())
    shown = "return Array.from(document.querySelectorAll('#table tbody tr'), row => row.id)"
    assert not visible(browser, "#more")
    browser.run("document.getElementById('table').dataset.step = 5")
    click = "document.querySelector(arguments[0]).click()"
    browser.run(click, "#table thead button")
    assert browser.run(shown) == ["r16", "r15", "r14", "r13", "r12"]
    assert browser.texts("#rest") == ["5 of 16 are shown"]
    browser.run(click, "#more button")
    assert len(browser.run(shown)) == 10
    browser.run("location.hash = '#r1'")  # the way back from the last one's page
    assert len(browser.run(shown)) == 16
    assert not visible(browser, "#more")


def test_sorting_filtering_and_reading_by_keyboard(browser: Browser, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(report.as_uri())
    focused = "return document.activeElement.textContent.trim()"
    browser.press(Keys.TAB)
    assert browser.run(focused) == "Skip to the videos"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.press(Keys.ENTER, Keys.TAB)
    assert browser.run("return document.activeElement.id") == "filter"
    browser.press(*"CLIP 1")
    assert browser.texts("#shown") == ["3 of 16"]
    assert browser.run("return document.querySelectorAll('#table tbody tr').length") == 3
    for _ in range(20):
        browser.press(Keys.TAB)
        if browser.run(focused) == "Lost %":
            break
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.ENTER)
    assert head(browser, "Lost %") == "ascending"
    browser.press(Keys.SPACE)
    assert head(browser, "Lost %") == "descending"
    assert browser.run(focused) == "Lost %"
    for _ in range(20):
        browser.press(Keys.TAB)
        if browser.run("return document.activeElement.matches('#table a')"):
            break
    name = browser.run(focused)
    assert name == "clip 11"
    browser.press(Keys.ENTER)
    browser.until("return document.title.startsWith('clip 11 – ')")
    assert browser.run("return document.activeElement.matches('.page:target h2')")
    assert not visible(browser, ".overview")
    browser.driver.back()
    browser.until("return document.querySelector('.overview').checkVisibility()")


def test_a_page_and_the_way_back(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri())
    link = "return Array.from(document.querySelectorAll('#table a')).find(a => a.textContent === arguments[0])"
    browser.run(link, "clip 3").click()
    browser.until("return document.querySelector('.page:target')?.checkVisibility()")
    assert browser.run("return document.querySelector('.page:target h2').textContent") == "clip 3"
    overlay = browser.run("return document.querySelector('.page:target a[href^=overlays]').getAttribute('href')")
    assert (report.parent / overlay).is_file()
    assert browser.run("return document.querySelectorAll('.page:target figure').length") == 3
    browser.run("return document.querySelector('.page:target nav a')").click()
    browser.until("return document.title.startsWith('Review of ')")
    assert visible(browser, ".overview")
    assert browser.run("return document.activeElement.textContent") == "clip 3"


def test_charts_say_where_and_how_much_and_pictures_grow(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri() + "#v1")
    assert browser.texts(".page:target .axis text:not(.time)")[:2] == ["0", "5"]
    assert browser.texts(".page:target .axis .time")[:2] == ["0:00.00", "0:00.20"]
    shown = len(browser.texts(".page:target figure"))
    assert browser.run("return document.querySelectorAll('.page:target .panel:first-child .mark').length") == 2 * shown
    browser.run("""
        const chart = document.querySelector('.page:target svg[data-top]');
        const box = chart.getBoundingClientRect();
        const place = {bubbles: true, clientX: box.left + box.width, clientY: box.top + 5};
        chart.dispatchEvent(new PointerEvent('pointermove', place));
    """)
    (told, *_) = browser.texts(".page:target .hover")
    assert told.startswith("frame 11 · 0.44 s · score about 0.10 · area about 0 px"), told
    browser.run("document.querySelector('.page:target figure button').click()")
    height = "return document.querySelector(arguments[0]).getBoundingClientRect().height"
    assert browser.run(height, "#large img") > 1.5 * browser.run(height, ".page:target figure img")
    browser.run("document.querySelector('#large').click()")
    assert not browser.run("return document.querySelector('#large').open")
    assert browser.console() == []


def test_no_page_is_wider_than_a_narrow_window(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri(), width=390)
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true")
    widest = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    for fragment in ["", *pages(browser)]:
        browser.run("location.hash = arguments[0]", fragment)
        scrolled, shown = browser.run(widest)
        assert scrolled <= shown <= 390, fragment


def test_light_and_dark(browser: Browser, report: Path) -> None:
    colours = "const s = getComputedStyle(document.documentElement); return [s.backgroundColor, s.color]"
    shown = []
    for dark in (False, True):
        browser.open(report.as_uri(), dark=dark)
        paper, ink = (
            sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) for colour in browser.run(colours)
        )
        shown.append(paper - ink)
    assert shown[0] > 500
    assert shown[1] < -500


def test_it_reads_without_its_script(browser: Browser, report: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(report.as_uri() + "#v1")
        assert visible(browser, ".page:target")
        assert not visible(browser, ".overview")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
