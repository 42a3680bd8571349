"""Which frame of a video a picture is that lies in the video's folder beside the annotations, as in `JPEGImages/`."""

from __future__ import annotations

from pathlib import Path

from rts_batch.io.video.images import frames_in
from rts_batch.io.video.picture_names import is_picture
from rts_batch.manifest.importers.base import Reading


def stored_frames(folder: Path, name: str, reading: Reading) -> dict[str, int] | None:
    """Return the frame index of each picture of a video's folder, by its name without ending; None where none counts.

    That is where the folder has no pictures, and where it is an export's whose table names the video: it may hold a few
    of that one's frames, and their names are indices. Otherwise pictures are counted as the run does that reads the
    folder: what is no frame of it has no place, and what such a run is warned of is warned of here. The folder becomes
    the path of the video called `name`.

    Raises:
        VideoError: which of the pictures are the frames is not clear.
    """
    _, exported = reading.names.get(name, ("", ""))
    if exported or not folder.is_dir() or not any(is_picture(file.name) for file in folder.iterdir()):
        return None
    chosen = frames_in(str(folder))
    for warning in chosen.warnings:
        reading.warn(f"{folder}: {warning}")
    reading.videos[name] = str(folder.resolve())
    return {Path(picture).stem: index for index, picture in enumerate(chosen.names)}
