"""A review server without a socket, asked as its page asks it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from rts_batch.masks import Marking, TrackedFrame
from rts_batch.review.server.app import Desk, build_app
from rts_batch.review.server.catalogue import Catalogue
from rts_batch.review.server.frames import FrameReader
from rts_batch.review.server.model import LazyModel
from rts_batch.review.server.new_videos import NewVideos, find_videos
from rts_batch.review.server.redo import Redo
from rts_batch.runs.corrections import CorrectionsBook
from rts_batch.runs.rows_file import RowsFile
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


class BoxesAsMasks:
    """In the place of the network: a box is its own mask, and masks move by a pixel a frame."""

    def mask_of(self, image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
        mask = np.zeros(image.shape[:2], bool)
        x, y, w, h = map(round, box)
        mask[y : y + h, x : x + w] = True
        return mask

    def open(self, targets: int = 1) -> BoxesAsMasks:
        self.masks: dict[int, np.ndarray] = {}
        return self

    def close(self) -> None:
        self.masks = {}

    def step(self, image: np.ndarray, prompts: Mapping[int, Marking] | None = None) -> dict[int, TrackedFrame]:
        self.masks = {key: np.roll(mask, 1, axis=1) for key, mask in self.masks.items()}
        self.masks |= {key: prompt.mask for key, prompt in (prompts or {}).items() if prompt.mask is not None}
        whole = (0, 0, *image.shape[:2])
        return {
            key: TrackedFrame(mask, whole, None, int(mask.sum()), 0.5, 0.5, "tracked", quality=0.5)
            for key, mask in self.masks.items()
        }


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
    with FrameReader(catalogue.source) as frames, closing(Redo(str(run), command)) as redo:
        yield page_at(Desk(subject=catalogue, frames=frames, book=CorrectionsBook(str(run)), model=model(), redo=redo))


@contextmanager
def marking_page(videos: list[str], manifest: Path, **others: Any) -> Iterator[Page]:
    book = RowsFile(str(manifest))
    subject = NewVideos(find_videos(videos), book.read().rows, str(manifest.parent))
    with FrameReader(subject.source) as frames:
        subject.reader = frames
        yield page_at(Desk(subject=subject, frames=frames, book=book, model=model(), **others))


def model() -> LazyModel:
    started = LazyModel(BoxesAsMasks)
    started.start()
    return started


def page_at(desk: Desk) -> Page:
    return Page(TestClient(build_app(desk, token=TOKEN, port=PORT), base_url=PAGE, raise_server_exceptions=True))


@contextmanager
def page_of(folder: Path, *videos: Video) -> Iterator[Page]:
    write_run(folder / "run", list(videos))
    with review_page(folder / "run") as page:
        yield page
