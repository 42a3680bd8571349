"""What a recipe may say beside what the other tests of a training say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rts_batch.errors import SettingsError
from rts_batch.training import recipe
from rts_batch.training.clips.batches import Clip, ClipMaker
from rts_batch.training.settings import ClipSettings


def test_a_kind_of_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/training.md offers it: its options are the builder's keyword arguments."""
    monkeypatch.setattr(recipe, "CLIP_KINDS", dict(recipe.CLIP_KINDS))
    made: list[tuple[ClipSettings, int, str]] = []

    def build(clips: ClipSettings, *, level: int, colour: str = "red") -> ClipMaker:
        made.append((clips, level, colour))

        def make(rng: np.random.Generator) -> Clip:
            raise AssertionError("reading a recipe draws no clip")

        return make

    recipe.register_clips("noise", build)
    path = tmp_path / "recipe.toml"
    path.write_text('[[data]]\nkind = "noise"\nlevel = 3\n')
    read = recipe.read_recipe(path)
    read.clips()
    assert made == [(read.settings.clips, 3, "red")]
    path.write_text('[[data]]\nkind = "noise"\nlevel = 3\nshade = 1\n')
    with pytest.raises(SettingsError, match="'noise' does not know 'shade'; its options are weight, level, colour"):
        recipe.read_recipe(path)
    path.write_text('[[data]]\nkind = "noise"\n')
    with pytest.raises(SettingsError, match="'noise' needs 'level'"):
        recipe.read_recipe(path)
