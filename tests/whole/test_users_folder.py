"""A run in a folder whose files are called as modules are: nothing that it starts imports one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import users_folder
from tests.support.running import REPOSITORY, STUB
from tests.support.videos import make_video

pytestmark = pytest.mark.long

USERS_PROGRAM = """
import sys
sys.path.append({repository!r})
before = sys.path.pop(0)  # a user whose files bear such names has trouble enough with what he imports himself
from rts_batch.cli.app import app
sys.path.append(before)
app(sys.argv[1:])
"""


def test_no_process_of_a_run_imports_the_users_files(tmp_path: Path) -> None:
    """Ray would have its workers look both in the driver's current folder and in its script's."""
    folder = users_folder.fill(tmp_path / "user")
    make_video(folder / "clip.mp4", 4)
    (folder / "m.csv").write_text('video,box\nclip.mp4,"30,30,20,20"\n')
    (folder / "label.py").write_text(USERS_PROGRAM.format(repository=str(REPOSITORY)))
    done = subprocess.run(
        [sys.executable, "label.py", "submit", "m.csv", "--out", "run", "--threads-per-worker", "1", *STUB],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert users_folder.imported(folder) == []
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "run" / "masks").iterdir())) == 1
