"""Several targets of one video on the same pixels: annotated each alone, tracked with the smaller one on top."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rts_batch.errors import PromptError
from rts_batch.masks import Marking
from rts_batch.tracking.scene import Scene
from rts_batch.weights.registry import build_model, build_sta, load_weights
from tests.support.videos import Disc, draw

WHOLE, PART = (36.0, 36.0, 120.0, 120.0), (81.0, 81.0, 30.0, 30.0)
"""The boxes of a disc, and of another in the middle of it."""

((IMAGE, _),) = draw(
    1, (320, 240), (Disc(start=(0.3, 0.4), radius=0.25), Disc(start=(0.3, 0.4), radius=0.0625, colour=(40, 90, 220)))
)


@pytest.fixture(scope="module")
def trained() -> Any:
    weights = load_weights("rts-mini")
    # What the target models learn does not matter here.
    config = replace(
        weights.tracker_config, crop_size=(96, 160), initial_warps=(), init_iterations=1, update_iterations=1
    )
    return build_model(weights, "cpu"), config, build_sta(weights, "cpu")


def scene(trained: Any, **options: Any) -> Scene:
    model, config, sta = trained
    return Scene(model, config, sta=sta, **{"single": False, **options})


def rectangle(x: int, y: int, w: int, h: int) -> NDArray[np.bool_]:
    mask = np.zeros((240, 320), bool)
    mask[y : y + h, x : x + w] = True
    return mask


@pytest.mark.long
@pytest.mark.parametrize("second", [PART, WHOLE])
def test_each_annotated_row_is_as_if_it_were_alone(trained: Any, second: tuple[float, ...]) -> None:
    prompts = {1: Marking(box=WHOLE), 2: Marking(box=second), 3: Marking(mask=rectangle(60, 60, 30, 30))}
    found = scene(trained).annotate(IMAGE, prompts)
    assert list(found) == [1, 2, 3]
    for object_id, prompt in prompts.items():
        alone = scene(trained, single=True).annotate(IMAGE, {object_id: prompt})[object_id]
        assert alone.area > 0
        np.testing.assert_array_equal(found[object_id].mask, alone.mask)
        assert found[object_id].box == alone.box
        assert found[object_id].area == alone.area
        assert (found[object_id].state, found[object_id].confidence) == ("prompt", 1.0)


@pytest.mark.parametrize("ids", [(1, 2), (2, 1)])
def test_a_smaller_target_keeps_its_pixels_whatever_its_id(trained: Any, ids: tuple[int, int]) -> None:
    large, small = ids
    whole, part = rectangle(40, 30, 100, 100), rectangle(100, 60, 60, 40)
    scenes = scene(trained)
    found = scenes.step(IMAGE, {large: Marking(mask=whole), small: Marking(mask=part)})
    np.testing.assert_array_equal(found[small].mask, part)
    np.testing.assert_array_equal(found[large].mask, whole & ~part)
    assert found[large].box == (40.0, 30.0, 100.0, 100.0)
    # The larger one was started without the smaller one's pixels.
    np.testing.assert_array_equal(scenes.trackers[large].state.probabilities.numpy() > 0, whole & ~part)


def test_a_part_marked_by_a_box_keeps_what_it_has_alone(trained: Any) -> None:
    prompts = {1: Marking(box=WHOLE), 2: Marking(box=PART)}
    alone = scene(trained).annotate(IMAGE, prompts)
    assert alone[1].area > alone[2].area > 0
    assert (alone[1].mask & alone[2].mask).any()
    together = scene(trained)
    found = together.step(IMAGE, prompts)
    np.testing.assert_array_equal(found[2].mask, alone[2].mask)
    np.testing.assert_array_equal(found[1].mask, alone[1].mask & ~alone[2].mask)
    assert together.divided == {1: (alone[1].mask & alone[2].mask).sum()}
    together.step(IMAGE)
    assert together.divided == {}


def test_a_target_of_which_nothing_is_left_is_refused(trained: Any) -> None:
    mask = rectangle(40, 30, 100, 100)
    for prompt in (Marking(mask=mask), Marking(box=WHOLE)):
        with pytest.raises(PromptError, match=r"object 5: its mask lies wholly under .* --overlap allow"):
            scene(trained).step(IMAGE, {5: prompt, 2: prompt})


@pytest.mark.parametrize("options", [{"single": True}, {}, {"overlap": "allow"}])
def test_a_mask_is_not_taken_as_numbers(trained: Any, options: dict[str, Any]) -> None:
    """255 pixels there were 255 for the target models; probabilities counted everywhere, and labels as others' too."""
    mask, other = rectangle(40, 30, 100, 100), Marking(mask=rectangle(200, 150, 60, 60))
    others = {} if options.get("single") else {2: other}
    for values in (mask * np.uint8(255), mask * 0.9 + 0.05, mask.astype(np.int64)):
        wrong: Any = values
        with pytest.raises(PromptError, match=rf"the mask is {values.dtype}, .* give it as bool"):
            scene(trained, **options).step(IMAGE, {1: Marking(mask=wrong), **others})
    for values in (rectangle(40, 30, 0, 0), mask[:100]):
        with pytest.raises(PromptError, match=r"the mask is (empty|320×100)"):
            scene(trained, **options).step(IMAGE, {1: Marking(mask=values), **others})


@pytest.mark.long
def test_targets_that_may_overlap_are_tracked_each_as_if_it_were_alone(trained: Any) -> None:
    whole, part = rectangle(36, 36, 120, 120), rectangle(81, 81, 30, 30)
    prompts = {1: Marking(mask=whole), 2: Marking(mask=part), 5: Marking(mask=whole), 7: Marking(box=PART)}
    together = scene(trained, overlap="allow")
    alone = {object_id: scene(trained, single=True) for object_id in prompts}
    for number in range(5):
        image = np.roll(IMAGE, 2 * number, axis=1)
        if number == 2:  # one goes on from a checkpoint, as a part of it is marked again
            state, together = together.snapshot(), scene(trained, overlap="allow")
            together.restore(state)
        marked = {0: {1, 2, 5}, 1: {7}, 3: {2}}.get(number, set())
        found = together.step(image, {object_id: prompts[object_id] for object_id in marked})
        assert list(found) == ([1, 2, 5] if number == 0 else [1, 2, 5, 7])
        for object_id, frame in found.items():
            again = {object_id: prompts[object_id]} if object_id in marked else {}
            expected = alone[object_id].step(image, again)[object_id]
            np.testing.assert_array_equal(frame.mask, expected.mask)
            for name in ("region", "box", "area", "score", "confidence", "state"):
                assert getattr(frame, name) == getattr(expected, name), (number, object_id, name)
    assert (found[1].mask & found[5].mask).sum() == found[1].area > 0


@pytest.mark.long
@pytest.mark.parametrize("options", [{"single": True}, {}, {"overlap": "allow"}])
def test_a_target_that_is_absent_is_not_looked_for_until_it_is_marked_again(
    trained: Any, options: dict[str, Any]
) -> None:
    mask = rectangle(36, 36, 120, 120)
    others = {} if options.get("single") else {2: Marking(mask=rectangle(200, 150, 60, 60))}
    scenes, unasked = scene(trained, **options), scene(trained, **options)
    for number, told in enumerate([Marking(mask=mask), None, Marking(), None, None, Marking(mask=mask), None]):
        prompts = {1: told} if told is not None else {}
        found = dict(scenes.step(IMAGE, {**prompts, **(others if number == 0 else {})}))
        assert list(found) == [1, *others]
        if number in (2, 3, 4):
            assert (found[1].state, found[1].area, found[1].box, found[1].score) == ("lost", 0, None, None)
            assert not found[1].mask.any()
            assert found[1].mask.shape == (240, 320)
        else:
            assert found[1].state == ("prompt" if told else found[1].state) != "lost"
            assert found[1].area > 0
        if number == 3:  # a checkpoint knows it too
            state, scenes = scenes.snapshot(), scene(trained, **options)
            scenes.restore(state)
    with pytest.raises(PromptError, match="object 1 is said to be absent before it was marked"):
        unasked.step(IMAGE, {1: Marking()})
