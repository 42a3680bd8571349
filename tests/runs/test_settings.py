"""The settings of a run, and the parts of a manifest."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rts_batch.config import TrackerConfig
from rts_batch.errors import SettingsError
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope, Shard


@pytest.mark.parametrize("values", [{"workers": 0}, {"threads_per_worker": -1}, {"gpus_per_worker": 0}])
def test_settings_check_themselves(values: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        RunSettings(**values)


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "gpu"), ("profile", "fp16"), ("overlap", "both"), ("decoder", "opencv"), ("device", None)],
)
def test_a_choice_is_one_of_those_there_are(name: str, value: Any) -> None:
    """From Python `fp16` was tracked in float32, and stood in `run.json`."""
    with pytest.raises(SettingsError, match=f"^{name} is {value!r}; expected one of "):
        RunSettings(**{name: value})


@pytest.mark.parametrize("value", ["2", 1.5, 0])
def test_counts_are_whole_numbers(value: Any) -> None:
    for name in ("workers", "min_workers", "threads_per_worker", "lanes"):
        with pytest.raises(SettingsError, match=f"{name.replace('_', ' ')} is {value!r}; it must be a whole number"):
            RunSettings(**{name: value})
    with pytest.raises(SettingsError, match="stall timeout is '9'; it must be a finite number"):
        RunSettings(stall_timeout="9")  # type: ignore[arg-type]


def test_a_scope_checks_itself() -> None:
    """A limit of -1 did one video less than are left, and `1/2` ended in a remainder of a text."""
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"limit": "3"}, {"max_failures": 0}, {"shard": "1/2"}]
    for values in wrong:
        with pytest.raises(SettingsError, match=f"{next(iter(values)).replace('_', ' ')} is "):
            Scope(**values)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", ["spool_quota", "stall_timeout", "checkpoint_every", "gpus_per_worker", "cpus_per_worker"]
)
def test_amounts_and_times_are_finite(name: str, amount: float) -> None:
    with pytest.raises(SettingsError, match=f"{name.replace('_', ' ')} is {amount}; it must be a finite number"):
        RunSettings(**{name: amount})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"spot is {amount}; it must be a finite number"):
        RunSettings(resources={"spot": amount})


def test_weights_and_resources_have_names() -> None:
    with pytest.raises(SettingsError, match="the weights have no name"):
        RunSettings(weights="")
    for name in ("", " "):
        with pytest.raises(SettingsError, match="a resource has no name"):
            RunSettings(resources={name: 1.0})


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3"])
def test_a_shard_that_makes_no_sense(text: str) -> None:
    with pytest.raises(SettingsError, match="shard"):
        Shard.parse(text)


def test_settings_survive_the_folder() -> None:
    settings = RunSettings(
        workers=3, resources={"spot": 0.5}, tracker_options={"crop_size": [240, 416]}, stall_timeout=9
    )
    written = json.loads(RunRecord(results={}, environment={}, settings=settings.to_dict()).to_json())["settings"]
    assert RunSettings.from_dict(written | {"of_a_later_version": 1}) == settings
    assert settings.tracker_config(TrackerConfig()).crop_size == (240, 416)
