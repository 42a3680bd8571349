"""The network of the page: loaded in the background, but not before there is something to look at."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rts_batch.errors import WeightsError
from rts_batch.review.server.model import LazyModel
from tests.support.review_desk import BoxesAsMasks

IMAGE = np.zeros((20, 30, 3), np.uint8)


class Loading:
    def __init__(self) -> None:
        self.count = 0
        self.done = threading.Event()

    def __call__(self) -> BoxesAsMasks:
        self.count += 1
        self.done.set()
        return BoxesAsMasks()


def test_it_is_loaded_once_however_often_it_is_started() -> None:
    load = Loading()
    model = LazyModel(load)
    for _ in range(5):
        model.start()
    assert load.done.wait(60)
    assert model.mask_of(IMAGE, (2, 3, 4, 5)).sum() == 20
    model.close()
    assert load.count == 1


def test_who_asks_before_does_not_wait_for_its_time() -> None:
    load = Loading()
    model = LazyModel(load)
    model.start(after=1000)
    assert model.mask_of(IMAGE, (2, 3, 4, 5)).any()
    model.start()
    model.close()
    assert load.count == 1


def test_without_anybody_who_looks_nothing_is_loaded() -> None:
    load = Loading()
    model = LazyModel(load)
    model.close()
    model.start()
    time.sleep(0.05)
    assert load.count == 0
    model = LazyModel(load)
    model.start(after=1000)
    model.close()
    assert load.count == 0


def test_why_it_cannot_be_loaded_is_said_to_whoever_asks() -> None:
    def load() -> BoxesAsMasks:
        raise WeightsError("these are no weights")

    model = LazyModel(load)
    for _ in range(2):
        with pytest.raises(WeightsError, match="these are no weights"):
            model.mask_of(IMAGE, (1, 1, 5, 5))
    model.close()
