"""What a submission settles before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rts_batch.actors.prepare import DEFAULT_SCOPE, finished, prepare
from rts_batch.config import Overlap
from rts_batch.errors import UsageError
from rts_batch.io.storage import files
from rts_batch.manifest import read_manifest
from rts_batch.runs.lease import _identity
from rts_batch.runs.settings import RunSettings, Scope
from tests.support.running import write_manifest


@pytest.mark.long
def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", [{"video": "a.mp4", "box": "1,1,9,9"}])
    out = str(tmp_path / "run")
    new = prepare(read_manifest(str(manifest)), out, RunSettings())
    assert new.record.results["profile"] in ("exact", "bf16"), "auto is settled by the machine"
    other = "bf16" if new.record.results["profile"] == "exact" else "exact"
    begun = prepare(read_manifest(str(manifest)), out, RunSettings(profile=other))
    begun.folder.prepare(begun.manifest, begun.record, DEFAULT_SCOPE)
    assert prepare(read_manifest(str(manifest)), out, RunSettings()).record.results["profile"] == other


def test_a_run_with_masks_that_count_no_longer_is_not_finished(tmp_path: Path) -> None:
    """A redo was killed between the new masks and the old ones' end."""
    settings, scope = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu"), Scope(redo_changed=True)
    out, manifests = str(tmp_path / "run"), []
    for height in (9, 8):
        path = write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", "box": [1, 1, 9, height]}])
        manifests.append(read_manifest(str(path)))
        prepared = prepare(manifests[-1], out, settings, scope=scope)
        prepared.folder.prepare(prepared.manifest, prepared.record, scope)
        (tmp_path / "masks").write_bytes(b"masks")
        prepared.folder.commit(manifests[-1].tasks[0], tmp_path / "masks", {"video_id": "a.mp4"})
    assert finished(manifests[-1], prepared.folder, settings, scope) is None
    prepared.folder.prepare(prepared.manifest, prepared.record, scope)
    assert prepared.folder.paths.outdated() == []
    assert finished(manifests[-1], prepared.folder, settings, scope) is not None
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    # Workers may have done the last video after their driver was killed, whose lease then says that the run has died.
    files.put_bytes(prepared.folder.paths.lease, json.dumps({**_identity(), "pid": gone.pid}).encode())
    assert finished(manifests[-1], prepared.folder, settings, scope) is None


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_finished_run_without_its_manifest_is_given_it_again(tmp_path: Path, damage: str) -> None:
    """As `status` says: submit the run's manifest again."""
    settings = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu")
    manifest = read_manifest(str(write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", "box": [1, 1, 9, 9]}])))
    prepared = prepare(manifest, str(tmp_path / "run"), settings)
    prepared.folder.prepare(manifest, prepared.record, DEFAULT_SCOPE)
    (tmp_path / "masks").write_bytes(b"masks")
    prepared.folder.commit(manifest.tasks[0], tmp_path / "masks", {"video_id": "a.mp4"})
    assert finished(manifest, prepared.folder, settings, DEFAULT_SCOPE) is not None
    kept = files.read_bytes(prepared.folder.paths.manifest)
    files.delete(prepared.folder.paths.manifest)
    if damage == "damaged":
        files.put_bytes(prepared.folder.paths.manifest, kept[:99])
    assert finished(manifest, prepared.folder, settings, DEFAULT_SCOPE) is None
    prepared.folder.prepare(manifest, prepared.record, DEFAULT_SCOPE)
    assert files.read_bytes(prepared.folder.paths.manifest) == kept
    assert finished(manifest, prepared.folder, settings, DEFAULT_SCOPE) is not None


@pytest.mark.parametrize("killed", ["after the note", "after the manifest"])
def test_rows_that_are_changed_back_after_a_kill_are_the_runs_again(tmp_path: Path, killed: str) -> None:
    """All of them are done, but the folder says that other rows are to be tracked, with which `resume` would go on."""
    settings, scope = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu"), Scope(redo_changed=True)
    manifests = []
    for height in (9, 8):
        path = write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", "box": [1, 1, 9, height]}])
        manifests.append(read_manifest(str(path)))
    before, changed = manifests
    prepared = prepare(before, str(tmp_path / "run"), settings, scope=scope)
    paths = prepared.folder.paths
    prepared.folder.prepare(before, prepared.record, scope)
    (tmp_path / "masks").write_bytes(b"masks")
    prepared.folder.commit(before.tasks[0], tmp_path / "masks", {"video_id": "a.mp4"})
    kept = files.read_bytes(paths.manifest)
    prepared.folder.prepare(changed, prepared.record, scope)
    if killed == "after the note":
        files.put_bytes(paths.manifest, kept)
    assert finished(before, prepared.folder, settings, scope) is None
    prepared.folder.prepare(before, prepared.record, scope)
    assert (files.read_bytes(paths.manifest), paths.replaced_by().get(before.tasks[0].key)) == (kept, None)
    assert finished(before, prepared.folder, settings, scope) is not None


def test_a_run_is_not_begun_in_a_folder_whose_name_is_no_utf8(tmp_path: Path) -> None:
    manifest = read_manifest(str(write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", "box": [1, 1, 9, 9]}])))
    with pytest.raises(UsageError, match="no UTF-8; give another one with --out"):
        prepare(manifest, str(tmp_path / os.fsdecode(b"T\xe9l\xe9")), RunSettings())


def test_a_finished_run_has_its_masks_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store each listing of a hundred thousand masks takes a hundred requests."""
    settings, scope = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu"), DEFAULT_SCOPE
    manifest = read_manifest(str(write_manifest(tmp_path / "m.jsonl", [{"video": "a.mp4", "box": [1, 1, 9, 9]}])))
    prepared = prepare(manifest, "memory://prepared", settings)
    prepared.folder.prepare(manifest, prepared.record, scope)
    (tmp_path / "masks").write_bytes(b"masks")
    prepared.folder.commit(manifest.tasks[0], tmp_path / "masks", {"video_id": "a.mp4"})
    listed: list[str] = []
    ls = MemoryFileSystem.ls

    def counted(self: MemoryFileSystem, path: str, **options: Any) -> Any:
        listed.append(path)
        return ls(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", counted)
    assert finished(manifest, prepared.folder, settings, scope) is not None
    assert listed == ["/prepared/masks", "/prepared/failed"]


@pytest.mark.parametrize("overlap", ["merge", "allow"])
def test_what_becomes_of_overlaps_is_recorded(tmp_path: Path, overlap: Overlap) -> None:
    rows = [{"video": "a.mp4", "object_id": key, "box": box} for key, box in ((1, [0, 0, 90, 90]), (2, [9, 9, 20, 20]))]
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    settings = RunSettings(overlap=overlap, tracker="tests.support.stub_tracker:Stub")
    prepared = prepare(read_manifest(str(manifest)), str(tmp_path / "run"), settings)
    assert prepared.record.results["overlap"] == prepared.record.settings["overlap"] == overlap
    assert prepared.tracker.overlap == overlap
    assert len(prepared.warnings) == (overlap == "merge"), "that one box lies in the other"
