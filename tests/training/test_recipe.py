"""What a recipe may say beside what the other tests of a training say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rts_batch.errors import SettingsError, TrainingError
from rts_batch.training import recipe
from rts_batch.training.clips.batches import Clip, ClipMaker
from rts_batch.training.settings import ClipSettings
from tests.support.training_layouts import write_youtube_vos


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


RUN = '[[data]]\nkind = "run"\nfolder = "runs/a"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RUN + 'states = "tracked"', r"\[\[data\]\] number 1, of kind 'run': states is 'tracked': .* valid array"),
        (RUN + 'states = ["tracket"]', r"states is \['tracket'\]: Input should be 'prompt', 'tracked'"),
        (RUN + 'minimum_quality = "0.5"', r"minimum_quality is '0.5': Input should be a valid number"),
        (RUN + 'weight = "heavy"', "data of kind 'run' has weight 'heavy'; expected a number above 0"),
        (RUN + RUN.replace('"runs/a"', "3"), r"\[\[data\]\] number 2, of kind 'run': folder is 3: .* valid string"),
        (RUN + RUN.replace("data", "validation") + "boxes = 1", r"\[\[validation\]\] number 1, .*: boxes is 1"),
        ('[[data]]\nkind = "davis"\nroot = "a"\nexclude = "v2"', "exclude is 'v2': Input should be a valid array"),
        (RUN.replace("[[data]]", "[data]"), r"expected tables, each under \[\[data\]\] in double brackets"),
        ("data = [1]", "expected tables"),
        ("settings = 3\n" + RUN, r"settings is 3; expected a table under \[settings\]"),
        ('initial = "x.pth"\n' + RUN, r"initial is 'x.pth'; expected a table under \[initial\]"),
        ("[initial]\nnetwork = 3\n" + RUN, "initial has 'network' = 3; valid are backbone and network"),
        ('validation_batches = "x"\n' + RUN, "validation_batches is 'x'; expected a whole number above 0"),
        ('base = ["paper"]\n' + RUN, r"base is \['paper'\]; valid are"),
    ],
)
def test_values_of_the_wrong_type_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text + "\n")
    with pytest.raises(SettingsError, match=said) as caught:
        recipe.read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_to_be_left_out_has_to_be_there(tmp_path: Path) -> None:
    write_youtube_vos(tmp_path / "vos")
    path = tmp_path / "recipe.toml"
    path.write_text('[[data]]\nkind = "youtube-vos"\nroot = "vos"\nexclude = ["v22"]\n')
    with pytest.raises(TrainingError, match=r"exclude names 'v22' and 0 more that .*vos does not have"):
        recipe.read_recipe(path).clips()
    path.write_text('[[data]]\nkind = "youtube-vos"\nroot = "vos"\nsequences = "list.txt"\n')
    (tmp_path / "list.txt").write_bytes("vidéo\n".encode("latin-1"))
    with pytest.raises(TrainingError, match=r"list.txt: the list of sequences cannot be read as UTF-8 text"):
        recipe.read_recipe(path).clips()


def test_a_step_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[data]]\nkind = "lasot"\nroot = "."\nmasks = "."\nstep = 0\n')
    with pytest.raises(SettingsError, match="has step 0 and limit 1000; both must be above 0"):
        recipe.read_recipe(path).clips()


def test_variables_may_hold_uris_names_and_parts_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", "s3://bucket/runs")
    monkeypatch.setenv("BUCKET", "bucket")
    monkeypatch.setenv("NET", "rts-mini")
    path = tmp_path / "recipe.toml"
    folders = {"$RUNS/a": "s3://bucket/runs/a", "s3://$BUCKET/a": "s3://bucket/a", "$NET": "rts-mini"}
    folders["$BUCKET/a"] = str(tmp_path / "bucket/a")
    for written, meant in folders.items():
        path.write_text(f'[initial]\nnetwork = "{written}"\n[[data]]\nkind = "run"\nfolder = "{written}"\n')
        read = recipe.read_recipe(path)
        assert (read.initial, read.data[0]["folder"]) == ({"network": meant}, meant)
