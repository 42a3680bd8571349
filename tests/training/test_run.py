"""Several workers on one global batch against one worker on the same batch."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from rts_batch.errors import TrainingError, WeightsError
from rts_batch.io.storage.files import TEMPORARY_SUFFIX, whole_file
from rts_batch.training.checkpoints import (
    load_state,
    only_training,
    save_state,
    state_files,
    write_atomically,
)
from rts_batch.training.clips.batches import Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.recipe import Recipe, read_recipe
from rts_batch.training.run import run_recipe, trained_weights
from tests.support.places import REPOSITORY
from tests.support.training_layouts import write_youtube_vos
from tests.support.training_tiny import RECIPE, SETTINGS, TINY_STA, losses_of, stream, trainer
from tests.support.training_worker import gradients, run

pytestmark = pytest.mark.training


@pytest.mark.parametrize("kind", ["rts", pytest.param("sta", marks=pytest.mark.slow)])
def test_two_workers_have_the_gradients_of_one(tmp_path: Path, kind: str) -> None:
    """In float64: the Lovász term is one over both workers' pixels, all else a mean."""
    settings = SETTINGS
    if kind == "sta":
        settings = dataclasses.replace(SETTINGS, objective="sta", model=TINY_STA)
    batch: Batch = next(stream(tmp_path / "data", settings).batches()).to("cpu", torch.float64)
    torch.save((settings, batch), tmp_path / "task.pt")
    torch.multiprocessing.spawn(run, (str(tmp_path),), nprocs=2)
    shared, shared_lovasz = torch.load(tmp_path / "found.pt", weights_only=True)
    alone, lovasz = gradients(batch, settings, Workers())
    assert shared_lovasz == pytest.approx(lovasz, abs=1e-7)  # exchanged as float32
    assert set(shared) == set(alone)
    for name, gradient in alone.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-7, atol=1e-11, msg=name)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("TINY_DATA", str(tmp_path))
    write_youtube_vos(tmp_path / "vos", ("v1",))
    (tmp_path / "tiny.toml").write_text(RECIPE.format(top="", settings=""))
    return read_recipe(tmp_path / "tiny.toml")


def train_job(config: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the job's script with a Ray of its own on this machine."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(REPOSITORY / "jobs/train.py"), str(config), "--out", str(out), "--address", "local"]
    return subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.ray
def test_two_workers_through_ray_equal_one(tmp_path: Path, recipe: Recipe) -> None:
    """The workers go on with a training that one process has begun, and end where that process alone would have."""
    torch.set_num_threads(1)
    assert run_recipe(recipe, tmp_path / "alone") == "finished"
    seen: list[int] = []
    run_recipe(recipe, tmp_path / "shared", report=lambda i, row: seen.append(i), stop=lambda: bool(seen))
    assert seen == [1]
    done = train_job(tmp_path / "tiny.toml", tmp_path / "shared", "--workers", "2", "--loaders", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    alone, shared = (load_state(state_files(tmp_path / name)[-1]) for name in ("alone", "shared"))
    assert shared.iteration == alone.iteration == 6
    rate = max(recipe.settings.learning_rates.values())
    for key, value in alone.model.items():
        # ADAM turns the rounding of a gradient near zero into a part of a step, never into more than a few.
        difference = (value - shared.model[key]).abs().float()
        assert float(difference.max()) <= 2 * rate, key
        assert float(difference.mean()) <= 0.02 * rate, key
    ours, theirs = losses_of(tmp_path / "alone"), losses_of(tmp_path / "shared")
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert [float(row[1]) for row in theirs] == pytest.approx([float(row[1]) for row in ours], rel=1e-3)


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_worker_cannot_read_is_said_by_the_job(tmp_path: Path, recipe: Recipe) -> None:
    for mask in (tmp_path / "vos/Annotations/v1").iterdir():
        mask.unlink()
    done = train_job(tmp_path / "tiny.toml", tmp_path / "run", "--workers", "1", "--loaders", "0")
    assert done.returncode == 1
    assert "error: data set 'youtube-vos': no clip of 4 frames" in done.stderr
    assert "holds no mask" in done.stderr
    done = train_job(tmp_path / "tiny.toml", tmp_path / "run", "--workers", "3")
    assert done.returncode == 10
    assert "error: a batch of 2 cannot be shared by 3 workers" in done.stderr


def test_a_folder_with_other_data_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    run_recipe(recipe, tmp_path / "run", stop=lambda: True)
    recipe.claim(tmp_path / "run")
    before = (tmp_path / "run/recipe.json").read_bytes()
    other = dataclasses.replace(recipe, data=({"kind": "davis", "root": "/elsewhere"},))
    with pytest.raises(TrainingError, match="belongs to a training with data"):
        other.claim(tmp_path / "run")
    other = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, batch=4))
    with pytest.raises(TrainingError, match="belongs to a training with batch = 2, not 4"):
        other.claim(tmp_path / "run")
    assert (tmp_path / "run/recipe.json").read_bytes() == before
    (tmp_path / "run/recipe.json").write_text('{"data": [')
    with pytest.raises(TrainingError, match=r"recipe.json: cannot be read .*; remove it if the folder's checkpoints"):
        recipe.claim(tmp_path / "run")


def test_what_is_best_on_other_validation_clips_begins_anew(
    tmp_path: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    """A value on easier clips stayed the bar, and the weights that had reached it were exported."""
    settings = dataclasses.replace(recipe.settings, best="loss", evaluate_every=1, epochs=1)
    data = {"kind": "youtube-vos", "root": str(tmp_path / "vos")}
    recipe = dataclasses.replace(recipe, settings=settings, validation=(data,), validation_batches=1)
    run_recipe(recipe, tmp_path / "run", stop=lambda: True)
    newest = load_state(state_files(tmp_path / "run")[-1])
    save_state(tmp_path / "run", dataclasses.replace(newest, best=-1.0), keep=1)
    run_recipe(recipe, tmp_path / "run", stop=lambda: True)
    assert load_state(state_files(tmp_path / "run")[-1]).best == -1.0
    assert "best begins anew" not in caplog.text
    settings = dataclasses.replace(settings, epochs=2)
    write_youtube_vos(tmp_path / "others", ("v1",))
    other = dataclasses.replace(recipe, settings=settings, validation=({**data, "root": str(tmp_path / "others")},))
    run_recipe(other, tmp_path / "run", stop=lambda: True)
    best = load_state(state_files(tmp_path / "run")[-1]).best
    assert best is not None
    assert best > 0
    assert "best begins anew" in caplog.text


def test_a_folder_in_which_nothing_was_trained_takes_a_mended_recipe(tmp_path: Path, recipe: Recipe) -> None:
    wrong = dataclasses.replace(recipe, data=({"kind": "youtube-vos", "root": str(tmp_path / "vosss")},))
    with pytest.raises(TrainingError, match="vosss"):
        run_recipe(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    wrong = dataclasses.replace(recipe, initial={"network": str(tmp_path / "absent.pth")})
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        run_recipe(wrong, tmp_path / "run")
    assert run_recipe(recipe, tmp_path / "run", stop=lambda: True) == "stopped"


def test_a_folder_is_trained_in_once_at_a_time(tmp_path: Path, recipe: Recipe) -> None:
    with only_training(tmp_path / "run"), pytest.raises(TrainingError, match="another process trains in this folder"):
        run_recipe(recipe, tmp_path / "run")
    assert run_recipe(recipe, tmp_path / "run", stop=lambda: True) == "stopped"
    with only_training(tmp_path / "run"):
        held = time.monotonic()
        with pytest.raises(TrainingError, match="another process"), only_training(tmp_path / "run", patience=0.3):
            pass
        assert time.monotonic() - held >= 0.3
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="file: cannot be used as a training's folder"):
        run_recipe(recipe, tmp_path / "file")


def test_a_killed_training_leaves_no_half_written_file_for_good(tmp_path: Path) -> None:
    half = "import os, sys, pathlib; from rts_batch.io.storage.files import whole_file\n"
    half += "with whole_file(pathlib.Path(sys.argv[1])) as part: part.touch(); os.kill(os.getpid(), 9)"
    for number in (1, 2):
        subprocess.run([sys.executable, "-c", half, str(tmp_path / f"state-{number:08d}.pt")])
    assert len(list(tmp_path.glob(f".state-*{TEMPORARY_SUFFIX}"))) == 2
    with only_training(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_damaged_best_weights_are_named(tmp_path: Path) -> None:
    state = dataclasses.replace(trainer(SETTINGS).state(), best=0.5)
    save_state(tmp_path, state, keep=1)
    (tmp_path / "best.pt").write_bytes(b"PK torn")
    with pytest.raises(TrainingError, match=r"best\.pt: not readable weights; remove it to take the newest"):
        trained_weights(tmp_path)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as first, whole_file(tmp_path / "a") as second:
        assert first != second
        for path in (first, second):
            path.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_atomically(tmp_path / "b", lambda: None)  # it cannot be pickled
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
