"""The mask codec against pycocotools, and against rubbish."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

import rts_batch.masks
from rts_batch.errors import ResultsError
from rts_batch.masks import (
    compress_runs,
    decode_rle,
    encode_rle,
    mask_box,
    parse_rle,
    smaller_on_top,
)

sides = st.integers(1, 40)
masks = st.tuples(sides, sides).flatmap(
    lambda shape: st.one_of(
        hnp.arrays(np.bool_, shape),
        hnp.arrays(np.bool_, shape, elements=st.just(True)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])),
    )
)
edges = st.integers(-10, 60)


def reference(mask: NDArray) -> bytes:
    return coco.encode(np.asfortranarray((mask != 0).astype(np.uint8)))["counts"]


@given(masks)
@example(np.zeros((1, 1), bool))
@example(np.ones((1, 1), bool))
@example(np.zeros((480, 854), bool))
@example(np.ones((480, 854), bool))
@example(np.eye(57, 31, dtype=np.uint8))
@example(np.ones((1, 300), np.uint8))
@example(np.ones((300, 1), np.uint8))
def test_counts_equal_pycocotools(mask: NDArray) -> None:
    assert encode_rle(mask) == reference(mask)
    assert np.array_equal(decode_rle(encode_rle(mask), *mask.shape), mask != 0)


@given(masks, edges, edges, edges, edges)
@example(np.ones((1, 2), bool), 0, 0, 1, 1)
@example(np.ones((7, 9), bool), 0, 3, 7, 5)
@example(np.ones((7, 9), bool), 2, 0, 7, 9)
def test_counts_from_a_region_equal_pycocotools(mask: NDArray, y0: int, x0: int, y1: int, x1: int) -> None:
    inside = np.zeros(mask.shape, bool)
    inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    mask = np.where(inside, mask, 0)
    assert encode_rle(mask, (y0, x0, y1, x1)) == reference(mask)


@given(masks, st.data())
def test_counts_of_a_view_equal_pycocotools(mask: NDArray, data: st.DataObject) -> None:
    step = data.draw(st.sampled_from([-2, -1, 2]))
    for view in (mask[::step], mask[:, ::step], mask.T, np.asfortranarray(mask)):
        assert encode_rle(view) == reference(view)


@given(masks, st.integers(1, 200))
def test_counts_of_a_mask_looked_at_in_pieces_equal_pycocotools(mask: NDArray, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rts_batch.masks, "CACHED_BYTES", size)
        assert encode_rle(mask) == reference(mask)
        inside = np.zeros_like(mask)
        inside[1:-1, 1:-1] = mask[1:-1, 1:-1]
        assert encode_rle(inside, (1, 1, mask.shape[0] - 1, mask.shape[1] - 1)) == reference(inside)


def test_counts_of_a_large_mask_equal_pycocotools() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((1080, 1920)) < 0.5
    assert encode_rle(mask) == reference(mask)
    disc = np.zeros((2160, 3840), np.uint8)
    cv2.circle(disc, (3000, 1000), 700, 1, -1)
    assert encode_rle(disc, (299, 2299, 1702, 3702)) == reference(disc)
    assert np.array_equal(decode_rle(reference(disc), 2160, 3840), disc != 0)


def test_encoding_from_the_region_is_faster_than_pycocotools() -> None:
    mask = np.zeros((1080, 1920), np.uint8)
    cv2.circle(mask, (900, 500), 200, 1, -1)
    region = (200, 500, 800, 1300)

    def fastest(encode: Callable[[], object]) -> float:
        times = []
        for _ in range(15):
            begin = time.process_time()
            encode()
            times.append(time.process_time() - begin)
        return min(times)

    assert fastest(lambda: encode_rle(mask, region)) < fastest(lambda: coco.encode(np.asfortranarray(mask)))


# Decoding what may be rubbish


@settings(max_examples=500)
@given(st.binary(max_size=60), st.integers(-1, 50), st.integers(-1, 50))
@example(b"", 4, 4)
@example(b"\xff", 4, 4)
@example(b"P", 4, 4)
@example(b"ooooooooooooooooooooooo", 4, 4)
@example(b"0", 1 << 40, 1 << 40)
@example(b"0" * 100_000, 4, 4)
def test_any_bytes_give_a_mask_or_our_error(counts: bytes, height: int, width: int) -> None:
    try:
        mask = decode_rle(counts, height, width)
    except ResultsError:
        return
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    # What was accepted is what pycocotools reads, too.
    assert np.array_equal(mask, coco.decode({"size": [height, width], "counts": counts}))


@settings(max_examples=500)
@given(st.text(alphabet=[chr(code) for code in range(48, 112)], max_size=30), sides, sides)
def test_any_text_of_the_right_letters_gives_a_mask_or_our_error(counts: str, height: int, width: int) -> None:
    test_any_bytes_give_a_mask_or_our_error.hypothesis.inner_test(counts.encode(), height, width)


@given(masks, st.data())
def test_damaged_counts_give_a_mask_or_our_error(mask: NDArray, data: st.DataObject) -> None:
    counts = bytearray(encode_rle(mask))
    counts[data.draw(st.integers(0, len(counts) - 1))] = data.draw(st.integers(0, 255))
    test_any_bytes_give_a_mask_or_our_error.hypothesis.inner_test(bytes(counts), *mask.shape)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_any_runs_survive_packing(runs: list[int]) -> None:
    runs[0] += 1
    packed = compress_runs(np.array(runs, np.int64), 1, sum(runs))
    assert parse_rle(packed, 1, sum(runs)).tolist() == runs


def test_wrong_counts_are_explained() -> None:
    with pytest.raises(ResultsError, match="do not add up to the 4×5 pixels"):
        decode_rle(encode_rle(np.zeros((4, 4), bool)), 4, 5)
    with pytest.raises(ResultsError, match="byte 1 of the RLE is 0x20"):
        decode_rle(b"0 0", 4, 5)
    with pytest.raises(ResultsError, match="breaks off"):
        decode_rle(encode_rle(np.zeros((40, 40), bool))[:-1], 40, 40)


# Boxes


@given(masks)
def test_the_box_is_tight(mask: NDArray) -> None:
    box = mask_box(mask)
    if box is None:
        assert not mask.any()
        return
    x, y, w, h = box
    inside = mask[y : y + h, x : x + w] != 0
    assert inside.shape == (h, w)
    assert inside.sum() == (mask != 0).sum()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@given(st.lists(hnp.arrays(np.bool_, (6, 7)), min_size=1, max_size=5), st.permutations(range(1, 6)))
def test_a_smaller_mask_lies_on_top(given_masks: list[NDArray], ids: list[int]) -> None:
    named = dict(zip(ids, given_masks, strict=False))
    painted = np.zeros((6, 7), int)
    for object_id in sorted(named, key=lambda key: (-named[key].sum(), -key)):  # the smallest is painted last
        painted[named[object_id]] = object_id
    kept = smaller_on_top(named)
    assert list(kept) == sorted(named)
    for object_id, mask in kept.items():
        assert np.array_equal(mask, painted == object_id)
