"""The order of names with numbers in them, and which numbers are decimals."""

from __future__ import annotations

import random

import pytest

from rts_batch.io.video.picture_names import Numbers, PictureName, natural_key


def test_natural_order_is_total() -> None:
    names = ["b2.png", "b10.png", "a.png", "b02.png", "10.png", "9.png"]
    expected = ["9.png", "10.png", "a.png", "b02.png", "b2.png", "b10.png"]
    for rotation in range(len(names)):
        assert sorted(names[rotation:] + names[:rotation], key=natural_key) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["1696000000.0", "1696000000.05", "1696000000.1", "1696000000.15", "1696000001.0"],
        ["0.25", "0.5", "0.75", "1.0", "1.25"],
        ["t=9.5_left", "t=9.75_left", "t=10.0_left", "t=10.125_left"],
        ["shot.8", "shot.9", "shot.10", "shot.11"],
        ["2.8", "2.9", "2.10", "2.11", "10.1"],
        ["a.0098", "a.0099", "a.0100", "a.10000"],
        ["v1.2.3", "v1.2.10", "v1.10.1"],
        ["0", "0.05", "0.1", "0.15"],
        ["1.500000", "1.533333", "2.000000"],
    ],
)
def test_numbers_are_read_as_their_names_mean_them(names: list[str]) -> None:
    shuffled = random.Random(0).sample(names, len(names))
    numbers = Numbers.of(shuffled)
    assert sorted(shuffled, key=lambda name: PictureName(f"{name}.png", numbers).order) == names


def test_doubt_is_told_only_where_nothing_decides() -> None:
    assert Numbers.of(["0.25", "0.5", "0.75", "1.0"]).doubt == "0.25"
    assert Numbers.of(["0.05", "0.1"]) == Numbers(decimals=True)
    assert Numbers.of(["1.9", "1.10"]) == Numbers()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frame_0001_mask.png", {"mask"}),
        ("masks/0001.png", {"masks"}),
        ("a_gtFine_labelIds.png", {"gt", "label"}),
        ("mask0001.png", {"mask"}),
        ("unmasked_0001.png", set()),
    ],
)
def test_words_that_speak_of_masks(name: str, words: set[str]) -> None:
    assert PictureName(name, Numbers()).mask_words == words
