"""What a submission settles before anything starts."""

from __future__ import annotations

from pathlib import Path

from rts_batch.actors.prepare import DEFAULT_SCOPE, prepare
from rts_batch.runs.settings import RunSettings
from tests.support.running import write_manifest


def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "a.mp4", "box": "1,1,9,9"}])
    out = str(tmp_path / "run")
    new = prepare(str(manifest), out, RunSettings())
    assert new.record.results["profile"] in ("exact", "bf16"), "auto is settled by the machine"
    other = "bf16" if new.record.results["profile"] == "exact" else "exact"
    begun = prepare(str(manifest), out, RunSettings(profile=other))
    begun.folder.prepare(begun.manifest, begun.record, DEFAULT_SCOPE)
    assert prepare(str(manifest), out, RunSettings()).record.results["profile"] == other
