"""The built package alone, in an environment with nothing else, tracks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.support.places import REPOSITORY
from tests.support.videos import Disc, make_video


@pytest.mark.slow
@pytest.mark.timeout(1500)  # it installs torch and Ray
def test_the_wheel_tracks_with_no_further_file(tmp_path: Path) -> None:
    source, environment = tmp_path / "source", tmp_path / "environment"
    source.mkdir()
    shutil.copytree(REPOSITORY / "rts_batch", source / "rts_batch")  # what an earlier build left is not in there
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    # With the repository on its path, pip would take the package for installed.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", wheel)
    masks = make_video(tmp_path / "clip.mp4", 6, discs=[Disc((0.4, 0.5), (0.6, 0.5), 0.25)])
    box = ",".join(map(str, cv2.boundingRect(masks[0, 0].astype("uint8"))))
    (tmp_path / "manifest.csv").write_text(f'video,box\nclip.mp4,"{box}"\n')
    run(environment / "bin" / "rts-batch", "submit", "manifest.csv", "--out", "run", "--json")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["done"] == 1
    count = "import rts_batch; print(len(list(rts_batch.read_masks('run').video('clip.mp4').frames())))"
    assert run(environment / "bin" / "python", "-c", count).stdout == "6\n"
