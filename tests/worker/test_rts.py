"""The RTS tracker as a worker has it."""

from __future__ import annotations

from rts_batch.runs.settings import RunSettings
from rts_batch.worker.tracker import find_factory


def test_the_papers_ablations_are_settings_of_the_tracker() -> None:
    factory = find_factory(RunSettings.tracker)
    options = {"rules": "paper", "not_found_threshold": 0.5, "localisation_conditioning": False}
    description = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu", tracker_options=options))
    assert {name: description.settings["tracker"][name] for name in options} == options
    plain = factory.describe(RunSettings(weights="rts-mini-untrained", device="cpu"))
    assert plain.settings["tracker"]["rules"] == "code"
    assert plain.fingerprint == description.fingerprint
