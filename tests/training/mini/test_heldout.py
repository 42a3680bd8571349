"""What training is judged by."""

from __future__ import annotations

from rts_batch.training.mini.heldout import preferred_seed


def test_the_held_out_pictures_choose_the_seed() -> None:
    def scored(mask: float, box: float) -> dict:
        return {"mask": {"jaccard": mask, "wrong_object": 0.1}, "box": {"jaccard": box, "wrong_object": 0.1}}

    assert preferred_seed({"0": scored(0.7, 0.5), "1": scored(0.65, 0.6), "2": scored(0.6, 0.6)}) == "1"
