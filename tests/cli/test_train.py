"""Recipes in TOML, `rts-batch train` and `rts-batch train-export`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from rts_batch.cli.app import app
from rts_batch.config import RTS_MINI
from rts_batch.errors import SettingsError, TrainingError
from rts_batch.training.checkpoints import load_state, save_state, state_files
from rts_batch.training.recipe import BASES, read_recipe
from rts_batch.training.run import run_recipe, settings_of, tracker_config, trained_weights
from rts_batch.training.settings import PAPER
from rts_batch.weights.registry import build_sta, load_weights
from tests.support.places import REPOSITORY
from tests.support.training_layouts import (
    write_davis,
    write_got10k,
    write_lasot,
    write_mask_pictures,
    write_youtube_vos,
)
from tests.support.training_tiny import RECIPE, SETTINGS, TINY, TINY_STA, losses_of, trainer

pytestmark = pytest.mark.training


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINY_DATA", str(tmp_path))
    write_youtube_vos(tmp_path / "vos", ("v1",))
    return tmp_path


def write_recipe(folder: Path, *, top: str = "", settings: str = "", more: str = "") -> Path:
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(top=top, settings=settings) + more)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# ---- recipes --------------------------------------------------------------------------------------------------------


def test_a_recipe_equals_its_settings(data: Path) -> None:
    recipe = read_recipe(write_recipe(data))
    assert recipe.settings == dataclasses.replace(SETTINGS)
    assert recipe.data == ({"kind": "youtube-vos", "root": str(data / "vos")},)


def test_relative_paths_belong_to_the_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_DATA", ".")
    recipe = read_recipe(write_recipe(data, more='sequences = "list.txt"\n'))
    assert Path(recipe.data[0]["root"]).samefile(data / "vos")
    assert recipe.data[0]["sequences"] == str(data / "list.txt")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"top": 'base = "paper"'}, "cannot be read as TOML"),
        ({"top": "epochs = 3"}, "there is no section 'epochs'; valid are base, settings"),
        ({"settings": "epoch = 3"}, "training settings have no 'epoch'"),
        ({"settings": 'rules = "mine"'}, "rules is 'mine': Input should be 'code' or 'paper'"),
        ({"settings": 'segmentation_weight = "much"'}, "segmentation_weight is 'much': Input should be a valid number"),
        ({"settings": "betas = [0.9]"}, r"betas is [0.9]: Field required"),
        ({"more": 'split = "train"'}, "data of kind 'youtube-vos' does not know 'split'; its options are weight, root"),
        ({"more": "weight = 0"}, "has weight 0; expected a number above 0"),
        ({"more": '[[data]]\nkind = "coco"'}, "data has kind 'coco'; valid are davis, got10k"),
        ({"more": '[[data]]\nkind = "lasot"'}, "data of kind 'lasot' needs 'masks'"),
        ({"more": '[initial]\nweights = "a"'}, "initial has 'weights' = 'a'; valid are backbone and network"),
    ],
)
def test_wrong_recipes_are_refused(data: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace("[", r"\[")) as caught:
        read_recipe(write_recipe(data, **changes))
    assert "tiny.toml" in str(caught.value)


def test_a_recipe_needs_data(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text('base = "paper"\n')
    with pytest.raises(SettingsError, match=r"no \[\[data\]\] to train on"):
        read_recipe(tmp_path / "empty.toml")
    (tmp_path / "empty.toml").write_text('base = "papers"\n')
    with pytest.raises(SettingsError, match="base is 'papers'; valid are lwl-stage1"):
        read_recipe(tmp_path / "empty.toml")
    with pytest.raises(SettingsError, match="write a file with base = 'paper'"):
        read_recipe("paper")
    with pytest.raises(SettingsError, match="does not exist; expected a TOML file"):
        read_recipe(tmp_path / "absent.toml")


EXAMPLES = sorted((REPOSITORY / "examples" / "training").glob("*.toml"))


def test_there_is_an_example_for_every_published_training() -> None:
    assert {"paper", "no-conditioning", "lwl-stage1", "lwl-stage2", "sta"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_train_on_the_standard_layouts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their data sets open and give clips, here in miniature; their settings are the named configuration's."""
    write_youtube_vos(tmp_path / "youtube-vos/train", ("v1", "v2"))
    (tmp_path / "youtube-vos/jjtrain.txt").write_text("v1\n")
    (tmp_path / "youtube-vos/jjvalid.txt").write_text("v2\n")
    write_davis(tmp_path / "davis-2017")
    write_got10k(tmp_path / "got10k/train", ("GOT-10k_Train_000001", "GOT-10k_Train_004419"))
    (tmp_path / "got10k/vottrain.txt").write_text("GOT-10k_Train_000001\nGOT-10k_Train_004419\n")
    write_mask_pictures(tmp_path / "masks/got10k", "GOT-10k_Train_000001")
    write_lasot(tmp_path / "lasot")
    (tmp_path / "lasot/training_set.txt").write_text("cat-7\n")
    write_mask_pictures(tmp_path / "masks/lasot", "cat-7", frames=61, step=5)
    monkeypatch.setenv("DATA", str(tmp_path))
    recipe = read_recipe(path)
    if path.stem in BASES:
        assert recipe.settings == BASES[path.stem]
    small = dataclasses.replace(recipe.settings.clips, crop_size=(48, 64))
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, clips=small))
    for clips in (recipe.clips(), recipe.validation_clips()):
        assert clips is not None

        assert clips(np.random.default_rng(0)).images.shape[1:] == (3, 48, 64)


def test_the_paper_s_data_sets_have_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    recipe = read_recipe(REPOSITORY / "examples/training/paper.toml")
    assert {entry["kind"]: entry["weight"] for entry in recipe.data} == {
        "youtube-vos": 6,
        "davis": 1,
        "got10k": 6,
        "lasot": 6,
    }
    assert recipe.validation_batches == 100
    assert recipe.settings == PAPER


def test_rts_mini_goes_on_from_stills(tmp_path: Path) -> None:
    """A recipe may train the small network on pictures with masks, beside or instead of videos."""
    rng = np.random.default_rng(0)
    lines = ["path,mask"]
    for number in range(12):
        mask = np.zeros((96, 128), np.uint8)
        cv2.circle(mask, (64, 48), 24, 1, -1)
        image = rng.integers(0, 120, (96, 128, 3), np.uint8) + 120 * mask[..., None]
        assert cv2.imwrite(str(tmp_path / f"{number}.jpg"), image)
        assert cv2.imwrite(str(tmp_path / f"{number}-mask.png"), mask)
        lines.append(f"{number}.jpg,{number}-mask.png")
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "mini.toml").write_text(
        'base = "mini"\n[settings]\nbatch = 1\nepochs = 1\niterations_per_epoch = 1\n'
        "[settings.clips]\ncrop_size = [96, 160]\nsearch_area_factor = 3.0\ntest_frames = 2\n"
        '[initial]\nnetwork = "rts-mini-untrained"\n[[data]]\nkind = "stills"\nindex = "index.csv"\n'
    )
    recipe = read_recipe(tmp_path / "mini.toml")
    assert run_recipe(recipe, tmp_path / "run") == "finished"
    weights = trained_weights(tmp_path / "run")
    assert weights.config == RTS_MINI
    frozen = "feature_extractor.features.0.0.weight"
    assert torch.equal(weights.state[frozen], load_weights("rts-mini-untrained").state[frozen])
    (tmp_path / "mini.toml").write_text('[[data]]\nkind = "stills"\nindex = "index.csv"\nsplit = "test"\n')
    with pytest.raises(SettingsError, match="split 'test'; valid are 'train' and 'held-out'"):
        read_recipe(tmp_path / "mini.toml").clips()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_train_validates_and_exports(data: Path) -> None:
    validation = '[[validation]]\nkind = "youtube-vos"\nroot = "$TINY_DATA/vos"\n'
    recipe = write_recipe(
        data, top="validation_batches = 1", settings='evaluate_every = 3\nbest = "jaccard"', more=validation
    )
    recipe.write_text(recipe.read_text().replace("evaluate_every = 0\n", ""))
    done = invoke("train", recipe, "--out", data / "run", "--device", "cpu", "--loaders", 0, "--json")
    assert done.exit_code == 0, done.output
    *rows, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert summary == {"event": "summary", "outcome": "finished", "folder": str(data / "run")}
    assert {"loss", "lovasz", "localisation", "jaccard", "seconds", "skipped"} <= set(rows[0])
    assert (data / "run/evaluation.csv").read_text().startswith("iteration,loss,lovasz,jaccard")
    assert (data / "run/best.pt").exists()

    done = invoke("train-export", data / "run", "-o", data / "tiny.safetensors", "--licence", "CC0", "--half")
    assert done.exit_code == 0, done.output
    weights = load_weights(data / "tiny.safetensors")
    assert weights.fingerprint == done.stdout.strip()
    assert weights.config == TINY
    assert weights.metadata["licence"] == "CC0"
    assert weights.tracker_config.crop_size == (48, 64)


def test_a_training_stops_and_goes_on(data: Path) -> None:
    recipe = write_recipe(data)
    done = invoke("train", recipe, "--out", data / "run", "--device", "cpu", "--loaders", 0, "--stop-after", 0)
    assert done.exit_code == 0
    assert "the same command goes on" in done.stderr
    assert load_state(state_files(data / "run")[-1]).iteration == 1
    done = invoke("train", recipe, "--out", data / "run", "--device", "cpu", "--loaders", 0)
    assert done.exit_code == 0
    assert load_state(state_files(data / "run")[-1]).iteration == 6
    assert [row[0] for row in losses_of(data / "run")] == ["1", "2", "3", "4", "5", "6"]


def test_ctrl_c_writes_a_checkpoint(data: Path) -> None:
    recipe = write_recipe(data)
    recipe.write_text(recipe.read_text().replace("epochs = 3", "epochs = 3000"))
    command = [
        sys.executable,
        "-c",
        "from rts_batch.cli.app import main; main()",
        "train",
        str(recipe),
        "--out",
        str(data / "run"),
        "--loaders",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 200
        while not (data / "run/curves.csv").exists() and time.monotonic() < end:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130, said
    assert "finishing the iteration and writing a checkpoint" in said
    last = load_state(state_files(data / "run")[-1]).iteration
    assert losses_of(data / "run")[-1][0] == str(last)


def test_errors_have_their_exit_codes(data: Path) -> None:
    recipe = write_recipe(data, settings='rules = "mine"')
    done = invoke("train", recipe, "--out", data / "run")
    assert done.exit_code == 10
    assert done.stderr.startswith("error: ")
    done = invoke("train", recipe, "--out", data / "run", "--json")
    assert json.loads(done.stdout)["exit_code"] == 10
    if not torch.cuda.is_available():
        done = invoke("train", write_recipe(data), "--out", data / "run", "--device", "cuda")
        assert done.exit_code == 13
    for device in ("gpu", "cuda:x", "cuda:-1"):
        done = invoke("train", write_recipe(data), "--out", data / "run", "--device", device)
        assert (done.exit_code, "is no device" in done.stderr) == (2, True), done.stderr
    done = invoke("train", write_recipe(data), "--out", data / "run", "--device", "cuda:99")
    assert (done.exit_code, "PyTorch sees" in done.stderr) == (13, True), done.stderr
    recipe = write_recipe(data, more='[initial]\nnetwork = "absent.pth"\n')
    assert invoke("train", recipe, "--out", data / "run", "--loaders", 0).exit_code == 12
    done = invoke("train-export", data / "nowhere", "-o", data / "a.safetensors")
    assert done.exit_code == 1
    assert "holds no checkpoint of a training" in done.stderr
    assert invoke("train-export", data / "run", "-o", data / "a.bin").exit_code == 2


def test_train_boxes_writes_a_manifest(tmp_path: Path) -> None:
    write_got10k(tmp_path / "got")
    done = invoke("train-boxes", "got10k", tmp_path / "got", "-o", tmp_path / "boxes.parquet")
    assert done.exit_code == 0
    assert "12 boxes, 0 sequences skipped" in done.stderr
    done = invoke("train-boxes", "davis", tmp_path / "got", "-o", tmp_path / "boxes.parquet")
    assert done.exit_code == 2
    assert "valid are got10k and lasot" in done.stderr
    for name, said in (("boxes.csv", "a name that ends in .parquet"), ("no/boxes.parquet", "does not exist; make it")):
        done = invoke("train-boxes", "got10k", tmp_path / "got", "-o", tmp_path / name)
        assert done.exit_code == 2
        assert said in done.stderr


def test_initial_weights_fill_the_network(data: Path) -> None:
    torch.manual_seed(7)
    lwl = trainer().model
    torch.nn.init.constant_(lwl.decoder.project.conv2.bias, 3.0)
    state = {k: v for k, v in lwl.state_dict().items() if not k.startswith(("clf_encoder.", "classifier."))}
    torch.save(state, data / "lwl.pt")
    recipe = read_recipe(write_recipe(data, more='[initial]\nnetwork = "lwl.pt"\n'))
    run_recipe(recipe, data / "run", stop=lambda: True)
    found = load_state(state_files(data / "run")[-1]).model["decoder.project.conv2.bias"]
    assert float(found) == pytest.approx(3.0, abs=0.01)
    (data / "lwl.pt").unlink()  # what goes on does not read it again
    assert run_recipe(recipe, data / "run") == "finished"


def test_trained_networks_come_with_their_box_network(tmp_path: Path) -> None:
    sta_settings = dataclasses.replace(
        SETTINGS,
        objective="sta",
        model=TINY_STA,
        clips=dataclasses.replace(SETTINGS.clips, train_frames=3, test_frames=0),
    )
    for name, settings in (("rts", SETTINGS), ("sta", sta_settings)):
        (tmp_path / name).mkdir()
        save_state(tmp_path / name, trainer(settings).state(), keep=1)
        assert settings_of(load_state(state_files(tmp_path / name)[-1]).settings) == settings
    weights = trained_weights(tmp_path / "rts", sta=tmp_path / "sta")
    box_network = build_sta(weights)
    assert box_network is not None
    assert box_network.config == TINY_STA
    with pytest.raises(TrainingError, match="name the tracker's run, and this one as --sta"):
        trained_weights(tmp_path / "sta")
    with pytest.raises(TrainingError, match="trained a tracker, expected a box-to-mask network"):
        trained_weights(tmp_path / "rts", sta=tmp_path / "rts")


def test_tracking_settings_follow_the_training() -> None:
    beside = dataclasses.replace(SETTINGS, localisation="beside")
    assert tracker_config(SETTINGS).localisation_conditioning
    assert not tracker_config(beside).localisation_conditioning
    mini = dataclasses.replace(SETTINGS, model=RTS_MINI)
    assert tracker_config(mini).crop_size == (320, 560)
    renamed = dataclasses.replace(SETTINGS, model=dataclasses.replace(RTS_MINI, name="my-mini"))
    assert tracker_config(renamed) == tracker_config(mini)
