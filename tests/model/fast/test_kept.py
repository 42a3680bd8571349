"""The folder of compiled parts: what is kept, what goes, and whose turn it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rts_batch.model.fast import kept


def test_what_was_used_last_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LARGEST", 250)
    parts = [tmp_path / f"{number:032x}.blob" for number in range(4)]
    for number, part in enumerate(parts[:2]):
        kept.write(bytes(100), part)
        os.utime(part, (1e9 + number, 1e9 + number))
    foreign, died = tmp_path / "notes.txt", tmp_path / "died.part"
    foreign.write_text("not ours")
    died.write_bytes(bytes(10))
    os.utime(died, (9e8, 9e8))
    assert kept.read(parts[0]) == bytes(100), "which counts as used now"
    kept.write(bytes(100), parts[2])
    assert set(tmp_path.iterdir()) == {parts[0], parts[2], foreign}
    assert kept.read(parts[1]) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / f"{0:032x}.blob"
    with kept.turn(nowhere):
        kept.write(b"content", nowhere)
    assert kept.read(nowhere) is None


def test_a_turn_ends_with_its_process_and_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / f"{5:032x}.blob"
    code = (
        "import sys, time; from pathlib import Path; from rts_batch.model.fast import kept\n"
        "with kept.turn(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(part)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        monkeypatch.setattr(kept, "LONGEST_WAIT_SECONDS", 0.3)
        began = time.monotonic()
        with kept.turn(part):
            assert time.monotonic() - began >= 0.3
        monkeypatch.setattr(kept, "LONGEST_WAIT_SECONDS", 600.0)
        process.kill()
        with kept.turn(part):
            pass
    finally:
        process.kill()
        process.wait()
