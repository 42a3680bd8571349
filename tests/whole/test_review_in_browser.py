"""The page of `rts-batch review --serve` as its user sees it: a real command, browser and local Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rts_batch import read_masks
from rts_batch.manifest import read_manifest
from rts_batch.masks import decode_rle, encode_rle
from rts_batch.runs.corrections import CorrectionsBook
from rts_batch.runs.lease import Lease
from tests.support.browsing import Browser, chromium
from tests.support.review_desk import disc_video
from tests.support.run_folders import Repeated, Video, write_run
from tests.support.running import STUB, run, start, write_manifest
from tests.support.videos import Disc, make_long_video, make_video

pytestmark = [pytest.mark.browser, pytest.mark.ray]

SHOWN = "return document.querySelector('#stage').dataset.frame === arguments[0]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def served(*words: object) -> Iterator[str]:
    """The address of the page that the real command serves, which ends well when it is interrupted."""
    process = start(*words, "--no-open", "--json")
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), err


def status_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def open_page(browser: Browser, address: str) -> None:
    browser.open(address)
    browser.until("return document.querySelector('#stage').dataset.frame !== undefined")


def draw_box(browser: Browser, x: int, y: int, w: int, h: int) -> None:
    """Draws a box, in pixels of the frame."""
    from selenium.webdriver.common.action_chains import ActionChains

    left, top, scale = browser.run(
        "const box = document.querySelector('#stage').getBoundingClientRect();"
        "const scale = Math.min(box.width / arguments[0], box.height / arguments[1]);"
        "return [(box.width - arguments[0] * scale) / 2 - box.width / 2,"
        " (box.height - arguments[1] * scale) / 2 - box.height / 2, scale]",
        160,
        120,
    )
    stage = browser.driver.find_element("id", "stage")
    chain = ActionChains(browser.driver)
    chain.move_to_element_with_offset(stage, round(left + x * scale), round(top + y * scale)).click_and_hold()
    chain.move_by_offset(round(w * scale), round(h * scale)).release().perform()


def test_the_worst_frame_is_found_corrected_and_tracked_again(browser: Browser, tmp_path: Path) -> None:
    truth = make_video(tmp_path / "a.mp4", 12, discs=[Disc(colour=(200, 40, 40), radius=0.2)])
    rows = [{"video": str(tmp_path / "a.mp4"), "video_id": "a", "box": [5, 5, 10, 10], "category": "disc"}]
    out = tmp_path / "run"
    assert run("submit", write_manifest(tmp_path / "a.jsonl", rows), "--out", out, *STUB).code == 0
    before = list(read_masks(str(out)).video("a").rows())

    with served("review", out, "--serve") as address:
        open_page(browser, address)
        browser.press("w")
        browser.until("return /worst place 1/.test(document.querySelector('#status').textContent)")
        frame = int(browser.run("return document.querySelector('#place').textContent.match(/frame (\\d+)/)[1]"))
        browser.until(SHOWN, str(frame))
        ys, xs = np.nonzero(truth[frame, 0])
        browser.press("b")
        draw_box(browser, xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
        browser.until("return /a mask of \\d+ pixels/.test(document.querySelector('#status').textContent)")
        assert browser.texts("#drafts") == ["1 change"]
        assert not CorrectionsBook(str(out)).read().rows, "nothing is written before it is saved"
        browser.press("s")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        (row,) = CorrectionsBook(str(out)).read().rows
        assert (row["video_id"], row["object_id"], row["frame"], row["category"]) == ("a", 1, frame, "disc")
        mask = json.loads(row["mask"])
        drawn = decode_rle(mask["counts"].encode(), *mask["size"])
        assert (drawn & truth[frame, 0]).sum() / (drawn | truth[frame, 0]).sum() > 0.5, "the disc, not just its box"

        both_sides = browser.driver.find_element("id", "redo-both")
        both_sides.click()
        both_sides.click()
        browser.press("t")  # the box has the focus
        browser.until("return !document.querySelector('#redo-bar').hidden")
        assert browser.run("return document.querySelector('#save').disabled"), "read-only meanwhile"
        deadline = time.monotonic() + 480
        while not browser.run("return document.querySelector('#redo-text').textContent === 'tracked again'"):
            assert time.monotonic() < deadline, browser.texts("#status")
            time.sleep(0.2)
        after = list(read_masks(str(out)).video("a").rows())
        assert [row.state for row in after] != [row.state for row in before]
        assert np.array_equal(after[frame].mask(), drawn)
        browser.until("return /prompt/.test(document.querySelector('#targets small').textContent)")
        assert browser.run("return document.querySelector('#redo-start').disabled"), "there is nothing left to track"
        assert browser.console() == []
        assert all(url.startswith(address) for url in browser.requests())


def test_brush_absent_undo_a_reload_and_a_second_tab(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver import Keys

    write_run(tmp_path / "run", [disc_video(tmp_path, "one", lost=range(10, 20)), disc_video(tmp_path, "two")])
    book = CorrectionsBook(str(tmp_path / "run"))
    with served("review", tmp_path / "run", "--serve") as address:
        assert status_of(address.rstrip("/")[:-1] + "/") == 403
        assert status_of(address) == 200
        open_page(browser, address)
        browser.press(Keys.PAGE_DOWN)
        browser.until("return document.querySelector('#videos [aria-current]').textContent.startsWith('two')")
        browser.until(SHOWN, "0")
        browser.press(*[Keys.ARROW_RIGHT] * 3)
        browser.until(SHOWN, "3")

        browser.press("d")
        draw_box(browser, 80, 20, 30, 1)
        browser.until("return document.querySelector('#drafts').textContent === '1 change'")
        browser.press("z")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        draw_box(browser, 80, 20, 30, 1)
        browser.press("2", "a")
        browser.until("return document.querySelector('#drafts').textContent === '2 changes'")

        browser.driver.refresh()
        browser.until("return document.querySelector('#drafts').textContent === '2 changes'")

        # Somebody else saves meanwhile, in another tab.
        other = {"video": "x", "video_id": "one", "object_id": 1, "frame": 12}
        mask = {"size": [120, 160], "counts": encode_rle(np.ones((120, 160), bool)).decode()}
        book.save(book.read().version, [{**other, "mask": json.dumps(mask)}])
        browser.press("s")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        saved = {(row["video_id"], row["object_id"], row["frame"]): row for row in book.read().rows}
        assert sorted(saved) == [("one", 1, 12), ("two", 1, 3), ("two", 2, 3)]
        assert saved["two", 2, 3]["prompt_kind"] == "absent"
        painted = json.loads(saved["two", 1, 3]["mask"])
        assert decode_rle(painted["counts"].encode(), 120, 160)[20, 85:105].all()
        assert all("409 (Conflict)" in message for message in browser.console()), "which the other tab's saving makes"


def test_what_is_not_saved_is_of_its_own_run(browser: Browser, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "run", [disc_video(tmp_path / name, "clip", 6)])
        with served("review", tmp_path / name / "run", "--serve", "--port", port) as address:
            open_page(browser, address)
            assert browser.texts("#drafts") == ["nothing"]
            browser.press("a")
            browser.until("return document.querySelector('#drafts').textContent === '1 change'")


def test_a_category_that_cannot_be_taken_away_stays_to_be_seen(browser: Browser, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 4)
    (tmp_path / "m.csv").write_text('video,video_id,box,category\na.mp4,a,"1,2,30,40",cat\n')
    clear = (
        "const input = document.querySelector('#targets input'); input.value = '';"
        "input.dispatchEvent(new Event('change')); return document.querySelector('#targets input').value"
    )
    with served("mark", tmp_path / "a.mp4", "-o", tmp_path / "m.csv") as address:
        open_page(browser, address)
        assert browser.run(clear) == "cat"
        assert "cannot be taken away" in browser.texts("#status")[0]
        assert browser.texts("#drafts") == ["nothing"]


def test_two_tabs_that_save_at_once_lose_nothing(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [disc_video(tmp_path, "one", lost=range(10, 20))])
    driver = browser.driver
    with served("review", tmp_path / "run", "--serve") as address:
        open_page(browser, address)
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(address)
        browser.until("return document.querySelector('#stage').dataset.frame !== undefined")
        second = driver.current_window_handle
        for tab, frame in ((first, 3), (second, 5)):
            driver.switch_to.window(tab)
            show_at(browser, frame)
            browser.press("1", "a")
            browser.until("return document.querySelector('#drafts').textContent === '1 change'")
        browser.press("s")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        driver.switch_to.window(first)
        browser.press("s")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        rows = CorrectionsBook(str(tmp_path / "run")).read().rows
        assert sorted(row["frame"] for row in rows) == [3, 5]
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)


def show_at(browser: Browser, frame: int) -> float:
    """Goes to a frame and returns the milliseconds until it is shown."""
    return browser.driver.execute_async_script(
        "const [frame, done] = arguments;"
        "import(new URL('view.js', location.href)).then(async ({ show }) => {"
        "  const began = performance.now(); await show(frame); done(performance.now() - began); });",
        frame,
    )


def test_a_step_takes_no_longer_in_a_video_of_ten_thousand_frames(browser: Browser, tmp_path: Path) -> None:
    videos = []
    for frames in (500, 10_000):
        masks = make_long_video(tmp_path / f"{frames}.mp4", frames)
        path = str(tmp_path / f"{frames}.mp4")
        videos.append(Video(str(frames), path, Repeated(masks, frames), {1: "disc"}))  # type: ignore[arg-type]
    write_run(tmp_path / "run", videos)
    steps = {}
    with served("review", tmp_path / "run", "--serve") as address:
        open_page(browser, address)
        for video in videos:
            browser.run(
                "return import(new URL('view.js', location.href)).then((view) => view.openVideo(arguments[0]))".replace(
                    "arguments[0]", repr(video.video_id)
                )
            )
            for frame in range(30):  # as they are there then, what is left is the page's own time
                show_at(browser, frame)
            steps[video.video_id] = np.median([show_at(browser, frame) for frame in [*range(28, 0, -1), *range(28)]])
    assert steps["10000"] < 3 * steps["500"] + 2


def test_who_zooms_in_sees_all_pixels(browser: Browser, tmp_path: Path) -> None:
    wide = "return import(new URL('view.js', location.href)).then(({ stage }) => stage.picture?.width)"
    make_video(tmp_path / "a.mp4", 4, size=(1920, 1080))
    with served("mark", tmp_path / "a.mp4", "-o", tmp_path / "m.csv") as address:
        open_page(browser, address)
        assert browser.run(wide) < 1100, "as wide as it is shown"
        browser.press(*["+"] * 6)
        browser.until(wide.replace("?.width", "?.width === 1920"))
        assert browser.console() == []


def test_the_page_fits_narrow_and_wide_windows_light_and_dark(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [disc_video(tmp_path, name, lost=range(10, 20)) for name in ("one", "t" * 80)])
    with served("review", tmp_path / "run", "--serve") as address:
        for width, dark in ((360, True), (420, False), (900, False), (1400, True), (2400, False)):
            browser.open(address, width=width, dark=dark)
            browser.until("return document.querySelector('#stage').dataset.frame !== undefined")
            assert browser.run("return document.documentElement.scrollWidth") <= width
            hidden = browser.run(
                "return Array.from(document.querySelectorAll('button')).filter((b) => b.offsetParent && ("
                "b.getBoundingClientRect().right > innerWidth || b.scrollWidth > b.clientWidth + 1))"
                ".map((b) => b.textContent)"
            )
            assert hidden == [], width
            paper = browser.run("return getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_the_pages_run_length_code_is_ours(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [disc_video(tmp_path, "one", 4)])
    random = np.random.default_rng(0)
    masks = [random.random((37, 23)) < share for share in (0.0, 0.02, 0.5, 0.98, 1.0)]
    masks += [np.kron(random.random((5, 7)) < 0.5, np.ones((40, 60))) > 0]
    with served("review", tmp_path / "run", "--serve") as address:
        open_page(browser, address)
        for mask in masks:
            counts = encode_rle(mask).decode()
            again, pixels = browser.driver.execute_async_script(
                "const [counts, height, width, done] = arguments;"
                "import(new URL('rle.js', location.href)).then((rle) => {"
                "  const mask = rle.decode(counts, height, width);"
                "  done([rle.encode(mask, height, width), rle.area(mask)]); });",
                counts,
                *mask.shape,
            )
            assert (again, pixels) == (counts, mask.sum())


def test_a_run_under_way_and_a_video_that_is_gone(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [disc_video(tmp_path, "one", 6)])
    (tmp_path / "one.mp4").unlink()
    (tmp_path / "run" / "failed").mkdir()
    attempt = {"error": "VideoError", "message": "<i>no</i> video"}
    note = {"video_id": "two", "attempts": [attempt]}
    (tmp_path / "run" / "failed" / "two-1.json").write_text(json.dumps(note))
    with served("review", tmp_path / "run", "--serve") as address:
        with Lease(CorrectionsBook(str(tmp_path / "run")).paths.lease):
            open_page(browser, address)
            assert "Read-only" in browser.texts("#lock")[0]
            assert "one.mp4" in browser.texts("#trouble")[0]
            assert browser.texts("#failed summary") == ["1 failed"]
            assert browser.texts("#failed li") == ["twoVideoError: <i>no</i> video"]
            browser.press("b", "a", "s")
            assert browser.texts("#drafts") == ["nothing"]
        browser.until("return document.querySelector('#lock').hidden")
        browser.press("a")
        browser.until("return document.querySelector('#drafts').textContent === '1 change'")


def test_the_page_opens_at_a_sound_video_and_names_the_file_that_is_damaged(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [disc_video(tmp_path, "bad", 6), disc_video(tmp_path, "good", 6)])
    (path,) = (tmp_path / "run" / "masks").glob("bad-*")
    path.write_bytes(path.read_bytes()[:-20])
    with served("review", tmp_path / "run", "--serve") as address:
        open_page(browser, address)
        assert browser.run("return document.querySelector('#videos [aria-current]').textContent").startswith("good")
        assert f"{path} is not a masks file" in browser.texts("#videos li")[0]
        assert browser.run("return document.querySelector('#trouble').hidden")
        browser.run("document.querySelector('#videos button').click()")
        browser.until("return /is not a masks file/.test(document.querySelector('#trouble').textContent)")


def test_new_videos_are_marked_looked_ahead_at_and_tracked(browser: Browser, tmp_path: Path) -> None:
    truth = make_video(tmp_path / "clips.mp4", 20, discs=[Disc(colour=(200, 40, 40), radius=0.2)])
    manifest = tmp_path / "manifest.csv"
    with served("mark", tmp_path, "-o", manifest, "--category", "disc") as address:
        open_page(browser, address)
        ys, xs = np.nonzero(truth[0, 0])
        browser.press("b")
        draw_box(browser, xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
        browser.until("return /a mask of \\d+ pixels/.test(document.querySelector('#status').textContent)")
        browser.press("v")
        browser.until("return /the next 15 frames/.test(document.querySelector('#status').textContent)")
        assert not manifest.exists()
        browser.press("s")
        browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
        assert browser.texts("#saved li button:first-child") == ["frame 0, object 1: mask"]
        assert browser.console() == []
    assert run("validate", manifest, "--deep").code == 0
    (task,) = read_manifest(str(manifest)).tasks
    assert (task.video_id, task.targets[0].category) == ("clips", "disc")
    prompt = task.targets[0].prompts[0].mask_rle
    assert prompt is not None
    found = decode_rle(prompt["counts"].encode(), *prompt["size"])
    assert (found & truth[0, 0]).sum() / (found | truth[0, 0]).sum() > 0.5
