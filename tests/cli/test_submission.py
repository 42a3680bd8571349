"""A submission in words: what is detached is what the command line said, from any folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rts_batch.cli import submit as command
from rts_batch.cli.app import app
from rts_batch.cli.submission import Submission
from rts_batch.runs import corrections
from rts_batch.runs.record import RunRecord
from rts_batch.runs.settings import RunSettings, Scope, Shard

SUBMIT: Any = typer.main.get_command(app).commands["submit"]  # type: ignore[attr-defined]


def parsed(words: list[str]) -> Submission:
    """What `rts-batch submit` makes of a command line."""
    made: list[Submission] = []

    class Recorded(Submission):
        def run(self, *, again: list[str]) -> None:
            made.append(Submission(**vars(self)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "Submission", Recorded)
        SUBMIT.main(words, standalone_mode=False)
    return made[0]


AMOUNT = st.floats(0.01, 1) | st.integers(2, 9).map(float)
COUNT = st.integers(1, 99)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
WORD = st.text("abc-._ é/:", min_size=1).filter(str.strip)


@st.composite
def settings(draw: st.DrawFn) -> RunSettings:
    values = {
        "weights": TEXT,
        "tracker": TEXT,
        "tracker_options": st.fixed_dictionaries(
            {},
            optional={
                "rules": st.sampled_from(["code", "paper"]),
                "not_found_threshold": st.floats(0, 10),
                "crop_size": st.lists(st.integers(2, 99).map(lambda n: 16 * n), min_size=2, max_size=2),
                "localisation_conditioning": st.just(False),
                "localisation_fallback": st.just(False),
            },
        ),
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
        "profile": st.sampled_from(["exact", "tf32", "bf16"]),
        "overlap": st.sampled_from(["merge", "allow"]),
        "decoder": st.sampled_from(["auto", "decord", "pyav"]),
        "spool_quota": st.floats(0, 1e6),
        "strict_video": st.booleans(),
        "workers": st.integers(50, 99),
        "min_workers": st.integers(1, 50),
        "threads_per_worker": COUNT,
        "lanes": COUNT,
        "gpus_per_worker": AMOUNT,
        "cpus_per_worker": AMOUNT,
        "resources": st.dictionaries(WORD, AMOUNT, max_size=3),
        "stall_timeout": st.floats(1, 1e6),
        "checkpoint_every": st.floats(0.1, 1e6),
        "keep_checkpoints": st.booleans(),
        "address": TEXT,
    }
    assert values.keys() == {field.name for field in RunSettings.__dataclass_fields__.values()}
    return RunSettings(**draw(st.fixed_dictionaries({}, optional=values)))


SCOPES = st.builds(
    Scope,
    shard=st.none() | st.builds(lambda a, b: Shard(index=min(a, b), count=max(a, b)), COUNT, COUNT),
    limit=st.none() | COUNT,
    max_failures=st.none() | COUNT,
)


@given(st.builds(Submission, TEXT, TEXT, settings(), SCOPES, *[st.booleans()] * 4))
def test_a_submission_survives_its_words(submission: Submission) -> None:
    assert parsed(submission.words()) == submission


def test_what_has_its_default_is_not_said() -> None:
    assert Submission("m.csv", "run", RunSettings(), Scope()).words() == ["--out=run", "--", "m.csv"]


def test_elsewhere_paths_are_absolute_and_no_other_word_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "rts-mini").touch()  # a file that is called as the weights of the package are
    same = Submission("m.csv", "run", RunSettings(tracker="m.csv", resources={"run": 1}, address="auto"), Scope())
    there = same.elsewhere()
    assert (there.manifest, there.out) == (f"{tmp_path}/m.csv", f"{tmp_path}/run")
    assert (there.settings.tracker, there.settings.resources) == ("m.csv", {"run": 1})
    assert there.settings.address == "local"  # the job's own command says where
    for given_, then in {
        "w.safetensors": f"{tmp_path}/w.safetensors",
        "rts-mini": "rts-mini",
        "s3://b/w": "s3://b/w",
    }.items():
        settings = RunSettings(weights=given_)
        assert Submission("s3://b/m.csv", "s3://b/run", settings, Scope()).elsewhere() == Submission(
            "s3://b/m.csv", "s3://b/run", RunSettings(weights=then), Scope()
        )


def test_words_are_refused_before_a_job_is_made_of_them() -> None:
    words = ["m.csv", "--out=run", "--workers=2", "--min-workers=3", "--detach", "--address=auto"]
    answer = CliRunner().invoke(app, ["submit", *words])
    assert answer.exit_code == 10
    assert "min workers is 3" in answer.stderr


@pytest.mark.parametrize(
    "words",
    [["resume"], ["resume", "--corrections"], ["resume", "--corrections", "--bidirectional"], ["retry", "--failed"]],
)
def test_what_goes_on_with_a_run_says_all_that_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """The folder has the settings of the first submission, with another cluster's address say."""
    record = RunRecord(results={}, environment={}, settings=RunSettings().to_dict())
    (tmp_path / "run.json").write_bytes(record.to_json())
    told: list[list[str]] = []
    monkeypatch.setattr(Submission, "run", lambda self, *, again: told.append(again))
    directions: list[str | None] = []

    def merged(run: str, direction: str | None) -> contextlib.nullcontext[str]:
        directions.append(direction)
        return contextlib.nullcontext("merged.parquet")

    monkeypatch.setattr(corrections, "merged_manifest", merged)
    options = ["--address=auto", "--workers=3", *(["--device=cpu", "--shard=1/2"] if words[0] == "resume" else [])]
    assert CliRunner().invoke(app, [*words, str(tmp_path), *options]).exit_code == 0
    (again,) = told
    assert sorted(again) == sorted([*words, str(tmp_path), *options])
    wanted = "bidirectional" if "--bidirectional" in words else None
    assert directions == ([wanted] if "--corrections" in words else [])
