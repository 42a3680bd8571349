"""The RTS tracker as a worker has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rts_batch.masks import Marking
from rts_batch.model.fast import compiled
from rts_batch.model.fast.compiled import Compiled
from rts_batch.runs.settings import RunSettings
from rts_batch.weights.registry import load_weights, save_weights
from rts_batch.worker.rts import RtsFactory
from rts_batch.worker.tracker import find_factory
from tests.support.parity_data import synthetic_frame


def test_the_papers_ablations_are_settings_of_the_tracker() -> None:
    factory = find_factory(RunSettings.tracker)
    options = {"rules": "paper", "not_found_threshold": 0.5, "localisation_conditioning": False}
    description = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu", tracker_options=options))
    assert {name: description.settings["tracker"][name] for name in options} == options
    plain = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu"))
    assert plain.settings["tracker"]["rules"] == "code"
    assert plain.fingerprint == description.fingerprint


def test_a_file_is_not_taken_for_the_weights_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`./rts-mini` was described as the weights that ship and loaded as the file."""
    untrained = load_weights("rts-mini-untrained")
    save_weights(untrained, tmp_path / "rts-mini")
    monkeypatch.chdir(tmp_path)
    fingerprints = {
        name: RtsFactory.describe(RunSettings(weights=name, device="cpu")).fingerprint
        for name in ("./rts-mini", (tmp_path / "rts-mini").as_uri(), "rts-mini")
    }
    assert [found == untrained.fingerprint for found in fingerprints.values()] == [True, True, False]


@pytest.mark.skipif(not compiled.is_available(), reason="OpenVINO is not installed")
@pytest.mark.networks
@pytest.mark.parametrize("profile", ["exact", "bf16"])
def test_once_it_is_loaded_no_video_waits_for_the_compiler(profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"crop_size": [96, 160], "init_iterations": 4}  # another size than the weights' own
    settings = RunSettings(weights="rts-mini", device="cpu", profile=profile, tracker_options=options)
    tracker = RtsFactory.load(RtsFactory.describe(settings), threads=1)

    def refuse(part: Compiled, shapes: object) -> None:
        raise AssertionError(f"{part.name} is compiled for {shapes} while a video is tracked")

    monkeypatch.setattr(Compiled, "_compile", refuse)
    scene = tracker.open(1)
    first, mask = synthetic_frame(96, 128, 0)
    scene.step(first, {1: Marking(mask=mask)})
    for number in range(1, 4):
        scene.step(synthetic_frame(96, 128, number)[0])
