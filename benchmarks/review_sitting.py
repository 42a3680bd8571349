"""A sitting at the page of `rts-batch review --serve`, scripted: the worst places of a run corrected, tracked again.

A headless Chromium goes to the worst place of one video after another by key and draws the truth's box there. Where the
network's mask of it is poor, as a labeller would see, it clicks a polygon around the target instead. Then it saves and
has the videos tracked again. Printed are the seconds of the page's work and of the tracking, and the mean IoU of each
video before and after.

    python -m benchmarks.review_sitting DAVIS RUN --places 5

The run's videos are named after DAVIS's sequences; it is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rts_batch import read_masks
from rts_batch.masks import decode_rle, jaccard
from rts_batch.runs.video_masks import VideoMasks
from tests.support.browsing import Browser, chromium
from tests.support.running import start

GOOD = 0.85
"""IoU with the truth from which on a labeller leaves a mask as it is."""

GEOMETRY = """
    const { width, height } = document.querySelector('#stage').getBoundingClientRect();
    const scale = Math.min(width / arguments[0], height / arguments[1]);
    return [-arguments[0] * scale / 2, -arguments[1] * scale / 2, scale];"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--boxes-alone", action="store_true", help="keep the masks of boxes, whatever they are")
    given = parser.parse_args()
    truth = Truth(given.davis / "Annotations" / "480p")
    before = {video.video_id: truth.mean_iou(video) for video in read_masks(str(given.run))}
    corrected, seconds = sit(given.run, truth, given.places, good=0.0 if given.boxes_alone else GOOD)
    after = {video.video_id: truth.mean_iou(video) for video in read_masks(str(given.run))}
    content = {
        "corrected": corrected,
        **{name: round(value, 1) for name, value in seconds.items()},
        "mean_iou_before": round(float(np.mean(list(before.values()))), 3),
        "mean_iou_after": round(float(np.mean(list(after.values()))), 3),
        "videos": {name: [round(before[name], 3), round(after[name], 3)] for name in sorted(before)},
    }
    print(json.dumps(content, indent=2))


class Truth:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mask(self, video_id: str, frame: int) -> NDArray[np.bool_]:
        path = sorted((self.folder / video_id).glob("*.png"))[frame]
        return np.asarray(np.array(Image.open(path)) > 0)

    def mean_iou(self, video: VideoMasks) -> float:
        return float(np.mean([jaccard(row.mask(), self.mask(row.video_id, row.frame)) for row in video.rows()]))


def sit(run: Path, truth: Truth, places: int, *, good: float) -> tuple[list[str], dict[str, float]]:
    """Correct the worst place of one video after another, again from the first on where there are few."""
    process = start("review", run, "--serve", "--no-open", "--json")
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    corrected = []
    try:
        with chromium() as browser:
            began = time.monotonic()
            browser.open(address)
            browser.until("return document.querySelector('#stage').dataset.frame !== undefined")
            names = browser.run(
                "return Array.from(document.querySelectorAll('#videos button'), b => b.firstChild.data)"
            )
            for place in range(places):
                if place:
                    press_video(browser, names[place % len(names)], place // len(names))
                corrected.append(correct(browser, truth, good))
            browser.press("s")
            browser.until("return document.querySelector('#drafts').textContent === 'nothing'")
            at_page = time.monotonic() - began
            browser.press("t")
            while browser.texts("#redo-text") != ["tracked again"]:
                time.sleep(0.2)
            return corrected, {
                "seconds_at_the_page": at_page,
                "seconds_of_tracking": time.monotonic() - began - at_page,
            }
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()


def press_video(browser: Browser, name: str, skipped: int) -> None:
    """Go to the next video by key, and past the worst places that are corrected already."""
    from selenium.webdriver import Keys

    browser.press(Keys.PAGE_DOWN)
    browser.until("return document.querySelector('#videos [aria-current]')?.firstChild.data === arguments[0]", name)
    browser.until("return document.querySelector('#stage').dataset.frame === '0'")
    browser.press(*["w"] * skipped)


def correct(browser: Browser, truth: Truth, good: float) -> str:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.press("w")
    video = browser.run("return document.querySelector('#videos [aria-current]').firstChild.data")
    frame = int(browser.run("return document.querySelector('#place').textContent.match(/frame (\\d+)/)[1]"))
    browser.until("return document.querySelector('#stage').dataset.frame === arguments[0]", str(frame))
    mask = truth.mask(video, frame)
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    left, top, scale = browser.run(GEOMETRY, mask.shape[1], mask.shape[0])
    browser.press("b")
    chain = ActionChains(browser.driver)
    stage = browser.driver.find_element("id", "stage")
    chain.move_to_element_with_offset(stage, round(left + x * scale), round(top + y * scale)).click_and_hold()
    chain.move_by_offset(round(w * scale), round(h * scale)).release().perform()
    browser.until("return /a mask of|finds nothing/.test(document.querySelector('#status').textContent)")
    drawn = json.loads(browser.run("return sessionStorage.getItem('drafts') ?? '[]'"))
    counts = [draft["counts"] for draft in drafts_of(drawn, video)]
    iou = jaccard(decode_rle(counts[-1].encode(), *mask.shape), mask) if counts else 0.0
    if iou >= good:
        return f"{video} {frame}: a box, IoU {iou:.2f}"
    corners = outline(mask)
    browser.press("g")
    for corner_x, corner_y in corners:
        chain = ActionChains(browser.driver, duration=0)
        chain.move_to_element_with_offset(stage, round(left + corner_x * scale), round(top + corner_y * scale))
        chain.click().perform()
    browser.press("r")
    return f"{video} {frame}: a box, IoU {iou:.2f}, then a polygon of {len(corners)} corners"


def drafts_of(drafts: list[dict[str, Any]], video: str) -> list[dict[str, Any]]:
    return [draft for draft in drafts if draft["video_id"] == video and draft.get("counts")]


def outline(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Corners of a polygon around the largest part of a mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea)
    return [(int(x), int(y)) for ((x, y),) in cv2.approxPolyDP(largest, 2.0, True)]


if __name__ == "__main__":
    main()
