"""The mask codec against pycocotools, and against rubbish."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

import rts_batch.masks
from rts_batch.errors import PromptError, ResultsError
from rts_batch.masks import (
    compress_runs,
    decode_mask_image,
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


# Mask images


def png(values: NDArray, mode: str | None = None) -> bytes:
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.new("P", image.size)
        image.putpalette([value for index in range(256) for value in (255 - index, index, 40)])
        image.putdata(values.reshape(-1).tolist())
    elif mode is not None:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


LABELS = np.array([[0, 1, 2], [7, 2, 255]], np.uint8)


@pytest.mark.parametrize(
    ("top", "mode"),
    [(255, "1"), *((top, mode) for top in (1, 255) for mode in (None, "P", "RGB", "RGBA", "LA", "I;16"))],
)
def test_black_and_white_means_not_zero(top: int, mode: str | None) -> None:
    mask = np.array([[0, top, top], [0, 0, top]], np.uint8)
    assert np.array_equal(decode_mask_image(png(mask, mode), object_id=7), mask != 0)


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


@pytest.mark.parametrize("mode", [None, "P", "RGB"])
@pytest.mark.parametrize("object_id", [1, 2, 7, 255, 300])
def test_other_values_are_object_ids(mode: str | None, object_id: int) -> None:
    assert np.array_equal(decode_mask_image(png(LABELS, mode), object_id), object_id == LABELS)


def test_sixteen_bits_hold_large_object_ids() -> None:
    labels = np.array([[0, 1000], [300, 65535]], np.uint16)
    assert decode_mask_image(png(labels), 1000).tolist() == [[False, True], [False, False]]
    assert decode_mask_image(png(labels), 65535).tolist() == [[False, False], [False, True]]


def test_colours_are_no_mask() -> None:
    picture = np.array([[[0, 1, 2], [3, 4, 5]]], np.uint8)
    with pytest.raises(PromptError, match="PNG of colours"):
        decode_mask_image(png(picture), 1)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_png_gives_a_mask_or_our_error(data: st.DataObject) -> None:
    content = bytearray(png(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(PromptError):
        assert decode_mask_image(bytes(content), 3).dtype == np.bool_


def test_a_file_that_is_no_png_is_refused() -> None:
    with pytest.raises(PromptError, match="not a PNG"):
        decode_mask_image(b"GIF89a", 1)
