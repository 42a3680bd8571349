"""Mask images of every kind that tools write, read as Pillow was told to write them, or refused with their values."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from rts_batch.errors import PromptError
from rts_batch.manifest.mask_images import open_mask_image
from rts_batch.manifest.mask_rules import ImageUse, MaskReading, read_mask_image

HEIGHT, WIDTH = 120, 180
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
SHAPES = {
    "square": (ROWS >= 40) & (ROWS < 76) & (COLUMNS >= 20) & (COLUMNS < 56),
    "disc": (ROWS - 60) ** 2 + (COLUMNS - 110) ** 2 <= 30**2,
    "small": (ROWS - 20) ** 2 + (COLUMNS - 30) ** 2 <= 6**2,
    "two parts": ((ROWS > 20) & (ROWS < 40) & (COLUMNS > 100)) | ((ROWS > 90) & (COLUMNS < 50)),
}
SQUARE, DISC = SHAPES["square"], SHAPES["disc"]
Values = NDArray[Any]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(values: Values) -> Image.Image:
    return Image.fromarray(np.asarray(values))


def palette(indices: Values, *colours: tuple[int, int, int], transparent: int | None = None) -> bytes:
    image = Image.frombytes("P", (indices.shape[1], indices.shape[0]), indices.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return saved(image, **({} if transparent is None else {"transparency": transparent}))


def painted(mask: Values, colour: tuple[int, ...], rest: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(mask[..., None], np.array(colour), np.array(rest)).astype(np.uint8))


def again(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def smooth(image: Image.Image, radius: float = 1.2) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def resized(image: Image.Image) -> Image.Image:
    return image.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )


def white(mask: Values) -> Image.Image:
    return grey(mask.astype(np.uint8) * 255)


def read(data: bytes, object_id: int = 1, **use: Any) -> MaskReading:
    use = {name: frozenset(value) if isinstance(value, set) else value for name, value in use.items()}
    return read_mask_image(open_mask_image(data), ImageUse(object_id=object_id, **use))


def refusal(data: bytes, object_id: int = 1, **use: Any) -> str:
    with pytest.raises(PromptError) as caught:
        read(data, object_id, **use)
    return str(caught.value)


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 128, 0)

EXACT: dict[str, Callable[[Values], bytes]] = {
    "black and white": lambda mask: saved(white(mask)),
    "0 and 1": lambda mask: saved(grey(mask.astype(np.uint8))),
    "one bit": lambda mask: saved(grey(mask)),
    "as RGB": lambda mask: saved(white(mask).convert("RGB")),
    "0 and 128": lambda mask: saved(grey(mask.astype(np.uint8) * 128)),
    "0 and 38": lambda mask: saved(grey(mask.astype(np.uint8) * 38)),
    "16 bits, 65535": lambda mask: saved(grey(mask.astype(np.uint16) * 65535)),
    "16 bits, 257": lambda mask: saved(grey(mask.astype(np.uint16) * 257)),
    "16 bits, 255": lambda mask: saved(grey(mask.astype(np.uint16) * 255)),
    "32 bits": lambda mask: saved(grey(mask.astype(np.int32) * 255), "TIFF"),
    "fractions": lambda mask: saved(grey(mask.astype(np.float32) * 0.75 + 0.125), "TIFF"),
    "opaque white": lambda mask: saved(painted(mask, (255, 255, 255, 255), (255, 255, 255, 0))),
    "opaque black": lambda mask: saved(painted(mask, (0, 0, 0, 255), (0, 0, 0, 0))),
    "a see-through colour": lambda mask: saved(painted(mask, (30, 144, 255, 102), (0, 0, 0, 0))),
    "opaque grey": lambda mask: saved(painted(mask, (255, 255), (255, 0))),
    "opaque everywhere": lambda mask: saved(painted(mask, (255, 255, 255, 255), (0, 0, 0, 255))),
    "a palette of white and black": lambda mask: palette(~mask, WHITE, BLACK),
    "a palette of black and white": lambda mask: palette(mask, BLACK, WHITE),
    "a palette of black and a colour": lambda mask: palette(mask, BLACK, RED),
    "a palette of a colour and black": lambda mask: palette(~mask, RED, BLACK),
    "a transparent index": lambda mask: palette(mask, WHITE, BLACK, transparent=0),
    "a transparent last index": lambda mask: palette(~mask, WHITE, BLACK, transparent=1),
    "red": lambda mask: saved(painted(mask, (255, 0, 0), BLACK)),
    "BMP": lambda mask: saved(white(mask), "BMP"),
    "GIF": lambda mask: saved(white(mask), "GIF"),
    "TIFF": lambda mask: saved(white(mask), "TIFF"),
}
"""Every way draws the mask given, and nothing else."""

NEARLY: dict[str, Callable[[Values], bytes]] = {
    "soft edges": lambda mask: saved(smooth(white(mask))),
    "very soft edges": lambda mask: saved(smooth(white(mask), 2)),
    "resized": lambda mask: saved(resized(white(mask))),
    "JPEG": lambda mask: saved(white(mask), "JPEG", quality=95),
    "a poor JPEG": lambda mask: saved(white(mask), "JPEG", quality=50),
    "once a JPEG": lambda mask: saved(again(saved(white(mask), "JPEG", quality=90))),
    "once a poor JPEG": lambda mask: saved(again(saved(white(mask), "JPEG", quality=60))),
    "WebP": lambda mask: saved(white(mask), "WEBP", quality=80),
    "16 bits, soft": lambda mask: saved(grey(np.asarray(smooth(white(mask))).astype(np.uint16) * 257)),
    "soft up to 128": lambda mask: saved(smooth(grey(mask.astype(np.uint8) * 128))),
    "red with soft edges": lambda mask: saved(smooth(painted(mask, (255, 0, 0), BLACK))),
    "a red JPEG": lambda mask: saved(painted(mask, (255, 0, 0), BLACK), "JPEG", quality=90),
    "soft opacity": lambda mask: saved(Image.merge("LA", (Image.new("L", (WIDTH, HEIGHT), 255), smooth(white(mask))))),
    "a palette of soft greys": lambda mask: saved(smooth(white(mask)).convert("RGB").quantize(32)),
    "a palette of soft reds": lambda mask: saved(smooth(painted(mask, (255, 0, 0), BLACK)).quantize(16)),
    "16 colours, dithered": lambda mask: saved(smooth(white(mask)).convert("RGB").quantize(16), "GIF"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", EXACT)
def test_a_target_drawn_in_any_way_is_read_as_it_was_drawn(kind: str, shape: str) -> None:
    reading = read(EXACT[kind](SHAPES[shape]))
    assert np.array_equal(reading.mask, SHAPES[shape]), reading.rule


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", NEARLY)
def test_soft_edges_are_cut_in_the_middle(kind: str, shape: str) -> None:
    reading = read(NEARLY[kind](SHAPES[shape]))
    outline = cv2.dilate(SHAPES[shape].astype(np.uint8), np.ones((5, 5))) != cv2.erode(
        SHAPES[shape].astype(np.uint8), np.ones((5, 5))
    )
    assert np.array_equal(reading.mask[~outline], SHAPES[shape][~outline]), reading.rule
    assert (reading.mask != SHAPES[shape]).sum() <= 0.12 * SHAPES[shape].sum()
    assert not reading.usual


USUAL = {
    "black and white",
    "0 and 1",
    "one bit",
    "as RGB",
    "opaque everywhere",
    "16 bits, 255",
    "32 bits",
    "a palette of black and white",
    "a palette of black and a colour",
    "BMP",
    "GIF",
    "TIFF",
}


@pytest.mark.parametrize("kind", EXACT)
def test_the_rule_is_told_where_the_image_is_not_a_usual_one(kind: str) -> None:
    assert read(EXACT[kind](SQUARE)).usual == (kind in USUAL)


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_a_drawing_along_a_jpegs_blocks_is_read(quality: int) -> None:
    """There the edges stay hard, and what compression leaves is 1 and 254, or nothing."""
    mask = (ROWS >= 40) & (ROWS < 80) & (COLUMNS >= 24) & (COLUMNS < 64)
    for shape in (mask, mask | SHAPES["small"]):
        found = read(saved(again(saved(white(shape), "JPEG", quality=quality)))).mask
        assert (found != shape).sum() <= 0.02 * shape.sum()


LABELS = np.zeros((HEIGHT, WIDTH), np.uint8)
LABELS[SQUARE], LABELS[DISC], LABELS[90:110, 30:60] = 1, 2, 7
DAVIS = (BLACK, RED, GREEN, (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128))
NUMBERED: dict[str, Callable[[Values], bytes]] = {
    "grey": lambda labels: saved(grey(labels)),
    "as RGB": lambda labels: saved(grey(labels).convert("RGB")),
    "16 bits": lambda labels: saved(grey(labels.astype(np.uint16))),
    "palette": lambda labels: palette(labels, *DAVIS),
    "a palette of greys": lambda labels: palette(labels, *((index, index, index) for index in range(8))),
    "a palette of brightnesses": lambda labels: palette(labels, *((index * 36,) * 3 for index in range(8))),
    "a transparent background": lambda labels: palette(labels, *DAVIS, transparent=0),
    "TIFF": lambda labels: saved(grey(labels), "TIFF"),
}


@pytest.mark.parametrize("object_id", [1, 2, 7])
@pytest.mark.parametrize("users", [set(), {1, 2, 7}])
@pytest.mark.parametrize("kind", NUMBERED)
def test_numbered_targets_are_told_apart(kind: str, users: set[int], object_id: int) -> None:
    reading = read(NUMBERED[kind](LABELS), object_id, users=users - {object_id}, others={1, 2, 7} - {object_id})
    assert np.array_equal(reading.mask, object_id == LABELS), reading.rule


@pytest.mark.parametrize("kind", NUMBERED)
def test_a_number_that_is_not_there_is_refused_with_the_values(kind: str) -> None:
    message = refusal(NUMBERED[kind](LABELS), 3, users={1, 2})
    assert "object 3's" in message
    assert f"2 ({DISC.sum()} pixels)" in message
    assert "7 (600 pixels)" in message


def test_a_void_value_beside_numbers_is_no_target() -> None:
    labels = LABELS.copy()
    labels[cv2.dilate(SQUARE.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~SQUARE] = 255
    for users in (set(), {2}):
        assert np.array_equal(read(saved(grey(labels)), 1, users=users).mask, SQUARE)
    assert np.array_equal(read(palette(labels, *DAVIS), 1).mask, SQUARE)


def test_large_ids_take_sixteen_bits() -> None:
    labels = LABELS.astype(np.uint16) * 500
    assert np.array_equal(read(saved(grey(labels)), 1000).mask, DISC)
    labels = np.where(SQUARE, 257, np.where(DISC, 514, 0)).astype(np.uint16)
    assert np.array_equal(read(saved(grey(labels)), 257).mask, SQUARE)
    assert np.array_equal(read(saved(grey(labels)), 2, users={1}).mask, DISC)
    labels = np.where(SQUARE, 1001, np.where(DISC, 1002, 0)).astype(np.uint16)
    for object_id, shape in ((1001, SQUARE), (1002, DISC)):  # also of a row that is the only one to use the image
        assert np.array_equal(read(saved(grey(labels)), object_id).mask, shape)


# The other rows decide


@pytest.mark.parametrize(
    "kind", ["0 and 1", "a palette of black and a colour", "a palette of black and white", "one bit"]
)
def test_an_image_of_several_targets_is_nobody_elses(kind: str) -> None:
    """An image of 0 and 1 gave object 2 the pixels of object 1."""
    message = refusal(EXACT[kind](SQUARE), 2, users={1}, others={1})
    assert "object 2" in message
    assert f"({SQUARE.sum()} pixels)" in message


@pytest.mark.parametrize("kind", ["0 and 1", "a palette of black and a colour", "a palette of black and white"])
def test_the_number_of_another_target_is_not_taken(kind: str) -> None:
    """Object 1 is marked on another frame; here it alone is drawn, in an image that only object 2's row names."""
    message = refusal(EXACT[kind](SQUARE), 2, others={1})
    assert "object 2" in message
    assert "1 (" in message


@pytest.mark.parametrize("kind", ["0 and 1", "a palette of black and a colour", "0 and 128", "black and white"])
def test_targets_with_an_image_each_need_no_numbers(kind: str) -> None:
    reading = read(EXACT[kind](SQUARE), 2, others={1}, apart=True)
    assert np.array_equal(reading.mask, SQUARE)


def test_a_palette_of_one_index_that_is_not_the_target_is_refused() -> None:
    message = refusal(palette(SQUARE, *DAVIS), 2)
    assert f"Its indices are 0 ({(~SQUARE).sum()} pixels), 1 ({SQUARE.sum()} pixels)" in message
    assert "number each target's pixels by its object_id" in message


def test_zero_and_one_is_one_target_where_no_row_says_otherwise() -> None:
    reading = read(EXACT["0 and 1"](SQUARE), 7)
    assert np.array_equal(reading.mask, SQUARE)
    assert not reading.usual
    assert "its values being 0 and 1" in reading.rule


# What is not clear


def two(first: Values, second: Values, one: Any, other: Any) -> Image.Image:
    values = np.zeros((*first.shape, *np.shape(one)), np.uint8)
    values[first], values[second] = one, other
    return Image.fromarray(values)


REFUSED = {
    "a small value that may be another target": (saved(grey(SQUARE.astype(np.uint8) * 5)), ["0 (", "5 ("]),
    "16 bits with a value that may be an id": (saved(grey(SQUARE.astype(np.uint16) * 2001)), ["2001 ("]),
    "two greys": (saved(two(SQUARE, DISC, 100, 200)), ["100 (", "200 ("]),
    "16 bits with two close numbers": (
        saved(grey(np.where(SQUARE, 1001, np.where(DISC, 1002, 0)).astype(np.uint16))),
        ["none is 1", "1001 (", "1002 ("],
    ),
    "two light greys": (saved(two(SQUARE, DISC, 215, 255)), ["none is 1", "215 (", "255 ("]),
    "a palette whose other index is lighter": (
        palette(np.where(SQUARE, 1, np.where(DISC, 2, 0)), BLACK, (1, 7, 13), (255, 249, 243)),
        ["1 is the index of a region", "2 ("],
    ),
    "all black": (saved(white(SQUARE & DISC)), ["it is empty: every pixel is 0"]),
    "all white": (saved(white(SQUARE | ~SQUARE)), ["all of it has one value", "255 (21600 pixels)"]),
    "two colours": (saved(two(SQUARE, DISC, (255, 0, 0), (0, 255, 0))), ["(255, 0, 0) (", "(0, 255, 0) ("]),
    "a small part of another colour": (
        saved(two(DISC, SHAPES["small"] & (ROWS > 20), (255, 0, 0), (0, 255, 0))),
        ["(255, 0, 0) (", "(0, 255, 0) ("],
    ),
    "red on white": (saved(painted(SQUARE, (255, 0, 0), WHITE)), ["(255, 0, 0) (", "(255, 255, 255) ("]),
    "half of it see-through": (saved(painted(SQUARE, (255, 255, 255, 255), (255, 255, 255, 128))), ["128 (", "255 ("]),
    "a drawing in an opaque part": (
        saved(
            Image.fromarray(
                np.stack([SQUARE * 255, ((ROWS > 10) & (COLUMNS > 10)) * 255], axis=-1).astype(np.uint8), "LA"
            )
        ),
        ["again light on dark"],
    ),
    "several colours on nothing": (
        saved(
            Image.fromarray(
                np.where(SQUARE[..., None], (255, 0, 0, 255), np.where(DISC[..., None], (0, 0, 255, 255), 0)).astype(
                    np.uint8
                )
            )
        ),
        ["its opaque part has several", "(255, 0, 0) (", "(0, 0, 255) ("],
    ),
    "1 beside 255": (saved(two(SQUARE, DISC, 1, 255)), ["may be an object id", "1 (", "255 ("]),
    "a thin 1 beside 255": (
        saved(two(SQUARE & (ROWS % 9 == 0), DISC, 1, 255)),
        ["may be an object id", "1 (", "255 ("],
    ),
    "a palette whose black is not the background": (
        palette(np.where(SQUARE, 1, np.where(DISC, 2, 0)), RED, GREEN, BLACK),
        ["black is not index 0 of its palette, but 2"],
    ),
    "a palette that numbers twice": (
        palette(np.where(SQUARE, 1, np.where(DISC, 2, 0)), BLACK, (2, 2, 2), (1, 1, 1)),
        ["number the targets differently"],
    ),
    "transparent": (saved(painted(SQUARE, (255, 255, 255, 0), (0, 0, 0, 0))), ["transparent everywhere"]),
    "fractions above 1": (saved(grey(SQUARE.astype(np.float32) * 1.5), "TIFF"), ["fractions go from 0 to 1.5"]),
    "below 0": (saved(grey(SQUARE.astype(np.int32) - 1), "TIFF"), ["go from -1 to 0"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_be_two_things_is_refused_with_its_values(kind: str) -> None:
    data, words = REFUSED[kind]
    message = refusal(data)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("kind", ["soft edges", "once a JPEG", "red with soft edges", "soft opacity"])
def test_a_drawing_of_one_target_is_not_two_targets(kind: str) -> None:
    assert "the rows of objects 1, 2 use it" in refusal(NEARLY[kind](SQUARE), users={2}, others={2})


def photograph() -> Image.Image:
    rng = np.random.default_rng(5)
    noise = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 7)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return Image.fromarray((noise * 255).astype(np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        saved(photograph()),
        saved(photograph(), "JPEG"),
        saved(photograph().convert("L")),
        saved(photograph().quantize(200)),
        saved(photograph().convert("L").quantize(200)),
    ],
    ids=["PNG", "JPEG", "grey", "palette", "grey palette"],
)
@pytest.mark.parametrize("object_id", [1, 60, 128, 255])
def test_a_photograph_is_no_mask(data: bytes, object_id: int) -> None:
    refusal(data, object_id)


def test_a_cut_out_photograph_is_where_it_is_opaque() -> None:
    cut = np.dstack([np.asarray(photograph()), DISC * np.uint8(255)])
    assert np.array_equal(read(saved(Image.fromarray(cut))).mask, DISC)
    cut = np.dstack([np.asarray(photograph().convert("L")), DISC * np.uint8(255)])
    assert np.array_equal(read(saved(Image.fromarray(cut, "LA"))).mask, DISC)


def test_a_cut_out_drawing_is_where_it_is_opaque() -> None:
    """Its colours were taken for several targets, although the picture goes on where it is transparent."""
    drawing = np.where(COLUMNS[..., None] < 110, (230, 60, 40), (250, 220, 60)) * (ROWS % 40 < 30)[..., None]
    cut = np.dstack([drawing, DISC * 255]).astype(np.uint8)
    assert np.array_equal(read(saved(Image.fromarray(cut))).mask, DISC)


def test_fractions_may_be_above_one_by_rounding() -> None:
    fractions = np.asarray(smooth(white(DISC))) / np.float32(254.99)
    assert (read(saved(grey(fractions), "TIFF")).mask != DISC).sum() <= 0.12 * DISC.sum()


def test_numbers_in_a_jpeg_are_not_believed() -> None:
    refusal(saved(grey(LABELS), "JPEG", quality=100))
    refusal(saved(grey(LABELS), "WEBP", lossless=True))
    refusal(saved(grey(LABELS * 30), "JPEG", quality=100), 30)


def probabilities(mask: Values, width: float, most: int = 255) -> Values:
    """A network's: 1 inside, 0 outside, and half at the outline, beside which they change over so many pixels."""
    inside, outside = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (mask, ~mask))
    values = most / (1 + np.exp((outside - inside + np.where(mask, 0.5, -0.5)) / width))
    return np.rint(values).astype(np.uint8 if most < 256 else np.uint16)


@pytest.mark.parametrize("most", [100, 255, 65535])
@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_probabilities_are_cut_in_the_middle(width: float, most: int) -> None:
    """Of the faint foot of a probability map the pixels of value 1 were object 1."""
    for object_id in (1, 2):
        reading = read(saved(grey(probabilities(DISC, width, most))), object_id, others={3 - object_id})
        assert (reading.mask != DISC).sum() <= 0.03 * DISC.sum()
        assert "what is lighter than half of" in reading.rule
        assert not reading.usual


@pytest.mark.parametrize(("width", "most"), [(30, 255), (12, 65535), (1, 25), (4, 25), (10, 20)])
@pytest.mark.parametrize("users", [set(), {2}])
def test_probabilities_without_a_clear_middle_are_refused(width: float, most: int, users: set[int]) -> None:
    assert "change gradually" in refusal(saved(grey(probabilities(DISC, width, most))), 1, users=users)


def test_many_targets_side_by_side_are_no_shades() -> None:
    cells = (ROWS // 30) * 6 + COLUMNS // 30 + 1
    for labels in (cells, np.where(ROWS % 30 < 20, cells, 0), np.where(ROWS < 60, COLUMNS // 9 + 1, 0)):
        for object_id in (1, 7):
            found = read(saved(grey(labels.astype(np.uint8))), object_id, users={2, 3} - {object_id})
            assert np.array_equal(found.mask, labels == object_id)


def test_a_jpeg_of_numbers_says_so() -> None:
    assert "a JPEG or WebP does not keep numbers" in refusal(saved(grey(LABELS), "JPEG", quality=100))
