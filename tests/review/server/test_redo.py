"""The command that the page starts, by one that says what it was started with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rts_batch.review.server.redo import Redo

SAYS_ITS_WORDS = "import json, sys; print(json.dumps({'event': 'summary', 'failures': sys.argv[1:]}))"


def finished(redo: Redo) -> dict[str, Any]:
    while (state := redo.state())["state"] == "running":
        pass
    return state


@pytest.mark.parametrize(("bidirectional", "words"), [(False, []), (True, ["--bidirectional"])])
def test_it_resumes_with_the_corrections(tmp_path: Path, bidirectional: bool, words: list[str]) -> None:
    redo = Redo(str(tmp_path), [sys.executable, "-c", SAYS_ITS_WORDS])
    try:
        assert redo.state() == {"state": "idle"}
        redo.start(bidirectional=bidirectional)
        found = finished(redo)
    finally:
        redo.close()
    assert found["state"] == "done"
    assert found["summary"]["failures"] == ["resume", str(tmp_path), "--corrections", "--json", *words]
