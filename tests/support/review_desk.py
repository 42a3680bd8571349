"""A review server without a socket, asked as its page asks it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from rts_batch.review.server.app import Desk, build_app
from rts_batch.review.server.box_head import BoxHead
from rts_batch.review.server.catalogue import Catalogue
from rts_batch.review.server.frames import FrameReader
from rts_batch.review.server.redo import Redo
from rts_batch.runs.corrections import CorrectionsBook
from tests.support.run_folders import Video, write_run
from tests.support.videos import Disc, make_video

TOKEN = "token-of-the-tests"
PORT = 8765
PAGE = f"http://127.0.0.1:{PORT}"

DISCS = (Disc(colour=(40, 150, 90)), Disc(start=(0.8, 0.8), end=(0.2, 0.8), radius=0.1, colour=(90, 140, 60)))


def disc_video(folder: Path, name: str, frames: int = 30, lost: range = range(0)) -> Video:
    """A video of two discs whose masks are right, but for the frames on which the first is lost."""
    path = folder / f"{name}.mp4"
    masks = make_video(path, frames, discs=DISCS, options={"g": "10"}).astype(bool)
    masks[lost.start : lost.stop, 0] = False
    return Video(name, str(path), masks, {1: "disc", 2: None}, first={2: 2})


def filled_box(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """In the place of the network: the box itself."""
    mask = np.zeros(image.shape[:2], bool)
    x, y, w, h = map(round, box)
    mask[y : y + h, x : x + w] = True
    return mask


class Page:
    """What a page of this server may ask."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, name: str, **values: object) -> Any:
        return self.client.get(f"/{TOKEN}/api/{name}", params=values)  # type: ignore[arg-type]

    def post(self, name: str, content: object = None) -> Any:
        return self.client.post(f"/{TOKEN}/api/{name}", json=content or {}, headers={"origin": PAGE})


@contextmanager
def review_page(run: Path, *, command: tuple[str, ...] = (sys.executable, "-m", "rts_batch")) -> Iterator[Page]:
    catalogue = Catalogue(str(run))
    with FrameReader(catalogue.source) as frames:
        head = BoxHead(lambda: filled_box)
        head.start()
        redo = Redo(str(run), command)
        desk = Desk(catalogue=catalogue, frames=frames, book=CorrectionsBook(str(run)), box_head=head, redo=redo)
        try:
            yield Page(TestClient(build_app(desk, token=TOKEN, port=PORT), base_url=PAGE, raise_server_exceptions=True))
        finally:
            redo.close()


@contextmanager
def page_of(folder: Path, *videos: Video) -> Iterator[Page]:
    write_run(folder / "run", list(videos))
    with review_page(folder / "run") as page:
        yield page
