"""Settings of `submit` from the command line, the environment and a file: who wins, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rts_batch.cli.app import app
from tests.support.running import STUB, write_manifest

FILE = """
weights = "rts-mini"
workers = 2
lanes = 3
strict-video = true
on_error = "stop"

[resource]
spot = 1
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "manifest.jsonl", [{"video": str(tmp_path / "a.mp4"), "box": [0, 0, 9, 9]}])


def submit(*arguments: object, command: str = "submit", **environment: str) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)], env=environment)


def shown(*arguments: object, **environment: str) -> dict[str, tuple[Any, str]]:
    answer = submit("m.csv", "--out", "run", "--show-settings", "--json", *arguments, **environment)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    return {name: (setting["value"], setting["from"]) for name, setting in found.items() if name != "event"}


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    file = tmp_path / "team.toml"
    file.write_text(FILE)
    found = shown("--settings", file, "--lanes", 5, RTS_BATCH_WORKERS="4", RTS_BATCH_LANES="4", RTS_BATCH_DEVICE="cpu")
    assert found["lanes"] == (5, "command line")
    assert found["workers"] == (4, "RTS_BATCH_WORKERS")
    assert found["device"] == ("cpu", "RTS_BATCH_DEVICE")
    assert found["weights"] == ("rts-mini", str(file))
    assert found["strict_video"] == (True, str(file))
    assert found["on_error"] == ("stop", str(file))
    assert found["resource"] == (["spot=1"], str(file))
    assert found["min_workers"] == (1, "default")
    assert "out" not in found


def test_the_file_itself_may_be_named_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text(FILE)
    assert shown(RTS_BATCH_SETTINGS=str(tmp_path / "team.toml"))["workers"] == (2, str(tmp_path / "team.toml"))
    (tmp_path / "mine.toml").write_text("workers = 7")
    found = shown("--settings", tmp_path / "mine.toml", RTS_BATCH_SETTINGS=str(tmp_path / "team.toml"))
    assert found["workers"] == (7, str(tmp_path / "mine.toml"))
    assert found["lanes"] == (None, "default")


def test_a_setting_has_every_name_that_its_option_has(tmp_path: Path) -> None:
    file = tmp_path / "team.toml"
    file.write_text("max-workers = 3")
    assert shown("--settings", file)["workers"] == (3, str(file))
    assert shown("--settings", file, RTS_BATCH_WORKERS="4")["workers"] == (4, "RTS_BATCH_WORKERS")
    assert shown("--settings", file, RTS_BATCH_MAX_WORKERS="5")["workers"] == (5, "RTS_BATCH_MAX_WORKERS")


def test_a_setting_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text("workers = 2\nmax-workers = 3")
    answer = submit("m.csv", "--out", "run", "--settings", tmp_path / "team.toml")
    assert answer.exit_code == 10
    assert "team.toml: 'max-workers' is the same setting as 'workers'" in answer.stderr
    answer = submit("m.csv", "--out", "run", RTS_BATCH_WORKERS="2", RTS_BATCH_MAX_WORKERS="3")
    assert answer.exit_code == 10
    assert "RTS_BATCH_MAX_WORKERS is the same setting as RTS_BATCH_WORKERS" in answer.stderr


def test_variables_hold_flags_and_lists() -> None:
    found = shown(RTS_BATCH_STRICT_VIDEO="1", RTS_BATCH_RESOURCE="spot=1, big=0.5", RTS_BATCH_LANES="")
    assert found["strict_video"] == (True, "RTS_BATCH_STRICT_VIDEO")
    assert found["resource"] == (["spot=1", "big=0.5"], "RTS_BATCH_RESOURCE")
    assert found["lanes"] == (None, "default")
    assert shown(RTS_BATCH_STRICT_VIDEO="no")["strict_video"][0] is False


def test_weights_beside_the_file(tmp_path: Path) -> None:
    for value, expected in {
        "own.safetensors": str(tmp_path / "own.safetensors"),
        "rts50": "rts50",
        "s3://bucket/own.safetensors": "s3://bucket/own.safetensors",
    }.items():
        (tmp_path / "team.toml").write_text(f'weights = "{value}"')
        assert shown("--settings", tmp_path / "team.toml")["weights"][0] == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("wokers = 2", "'wokers' is no setting of submit; did you mean workers?"),
        ("max-wokers = 2", "'max-wokers' is no setting of submit; did you mean max-workers?"),
        ("out = 'run'", "'out' is no setting of submit"),
        ("workers = 'many'", "workers = 'many': "),
        ("workers = 0", "workers = 0: "),
        ("workers = true", "workers = True: expected no truth value"),
        ("strict-video = 'yes'", "strict-video = 'yes': expected true or false"),
        ("device = 'tpu'", "device = 'tpu': "),
        ("resource = ['spot']", "resource = ['spot']: spot: expected NAME=AMOUNT"),
        ("[resource]\nspot = 'x'", "resource = ['spot=x']: spot=x: expected NAME=AMOUNT"),
        ("[resource]\n'' = 1", "resource = ['=1']: a resource has no name"),
        ("[resource]\nspot = nan", "resource = ['spot=nan']: spot is nan; it must be a finite number"),
        ("crop-size = [240, 416]", "crop-size = [240, 416]: '[240, 416]': expected height and width"),
        ("crop-size = '100x100'", "crop-size = '100x100': crop_size is (100, 100); both sides must be multiples of 16"),
        ("not-found-threshold = nan", "not-found-threshold = nan: not_found_threshold is nan"),
        ("gpus-per-worker = -1", "gpus-per-worker = -1: GPUs per worker is -1"),
        ("cpus-per-worker = nan", "cpus-per-worker = nan: cpus per worker is nan"),
        ("stall-timeout = inf", "stall-timeout = inf: stall timeout is inf"),
        ("weights = ''", "weights = '': the weights have no name"),
        ("workers = ", "not a TOML file"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(content: str | None, words: str, manifest: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "team.toml").write_text(content)
    answer = submit(manifest, "--out", tmp_path / "run", "--settings", tmp_path / "team.toml")
    assert answer.exit_code == 10
    assert f"{tmp_path / 'team.toml'}: {words}" in answer.stderr


def test_what_is_wrong_with_a_variable_is_named(manifest: Path, tmp_path: Path) -> None:
    answer = submit(manifest, "--out", tmp_path / "run", "--json", RTS_BATCH_WORKERS="x")
    assert answer.exit_code == 10
    assert "RTS_BATCH_WORKERS=x" in answer.stderr
    assert json.loads(answer.stdout)["exit_code"] == 10


def test_what_a_run_cannot_do_with_a_variable_is_named(manifest: Path, tmp_path: Path) -> None:
    for command in ("plan", "submit"):
        answer = submit(manifest, "--out", tmp_path / "run", command=command, RTS_BATCH_RESOURCE="spot")
        assert answer.exit_code == 10
        assert "RTS_BATCH_RESOURCE=spot: spot: expected NAME=AMOUNT" in answer.stderr
        answer = submit(manifest, "--out", tmp_path / "run", command=command, RTS_BATCH_CHECKPOINT_EVERY="inf")
        assert answer.exit_code == 10
        assert "RTS_BATCH_CHECKPOINT_EVERY=inf: checkpoint every is inf; it must be a finite number" in answer.stderr


def test_a_misspelt_variable_is_told() -> None:
    answer = submit("m.csv", "--out", "run", "--show-settings", RTS_BATCH_WORKER="2", RTS_BATCH_PRIVATE_HTTP="allow")
    assert answer.stderr.splitlines() == ["warning: RTS_BATCH_WORKER is not looked at; did you mean RTS_BATCH_WORKERS?"]


def test_a_misspelt_variable_may_be_nearest_to_an_options_other_name() -> None:
    answer = submit("m.csv", "--out", "run", "--show-settings", RTS_BATCH_MAX_WORKER="2")
    assert "did you mean RTS_BATCH_MAX_WORKERS?" in answer.stderr


def test_plan_and_submit_see_the_same(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text('weights = "no/such.pth"\nworkers = 2')
    for command in (["plan"], ["submit", "--dry-run"]):
        arguments = [*command[1:], manifest, "--out", tmp_path / "run", "--settings", tmp_path / "team.toml"]
        answer = submit(*arguments, command=command[0])
        assert answer.exit_code == 12
        assert str(tmp_path / "no/such.pth") in answer.stderr
    answer = submit(manifest, "--out", tmp_path / "run", *STUB, command="plan", RTS_BATCH_OVERLAP="allow")
    assert answer.exit_code == 0, answer.output


@pytest.mark.parametrize("as_variables", [False, True])
def test_plan_counts_with_the_lanes_and_cpus_that_submit_takes(
    manifest: Path, tmp_path: Path, as_variables: bool
) -> None:
    file = tmp_path / "team.toml"
    file.write_text("" if as_variables else "lanes = 8\ncpus-per-worker = 3\nworkers = 2\nmin-workers = 2\n")
    environment = {"RTS_BATCH_LANES": "8", "RTS_BATCH_CPUS_PER_WORKER": "3"} if as_variables else {}
    for command in (["plan"], ["submit", "--dry-run"]):
        arguments = [*command[1:], manifest, "--out", tmp_path / "run", *STUB, "--settings", file, "--json"]
        answer = submit(*arguments, command=command[0], **environment)
        assert answer.exit_code == 0, answer.output
        planned = json.loads(answer.stdout)
        assert (planned["lanes"], planned["cpus_per_worker"]) == (8, 3), command


def test_plan_refuses_what_submit_refuses_of_the_settings_together(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text("workers = 2\nmin-workers = 3")
    for command in (["plan"], ["submit", "--dry-run"]):
        arguments = [*command[1:], manifest, "--out", tmp_path / "run", *STUB, "--settings", tmp_path / "team.toml"]
        answer = submit(*arguments, command=command[0])
        assert answer.exit_code == 10
        assert "min workers is 3, more than the 2 workers at most" in answer.stderr


def test_plain_words_say_where_a_value_is_from() -> None:
    answer = submit("m.csv", "--out", "run", "--show-settings", "--workers", "2")
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert ["workers", "2", "command", "line"] in lines
    assert ["lanes", "not", "set", "default"] in lines
    assert ["resource", "not", "set", "default"] in lines
    answer = submit("m.csv", "--out", "run", "--show-settings", "--resource", "spot=1", "--resource", "big=2")
    assert ["resource", "spot=1,", "big=2", "command", "line"] in [line.split() for line in answer.stdout.splitlines()]
