from pathlib import Path

import pytest
from PIL import Image

from rts_batch.manifest.importers import ImportOptions
from rts_batch.manifest.importers.base import Reading
from rts_batch.manifest.importers.files_of_pictures import FilesOfPictures


def places(root: Path, *files: Path, **options: str) -> list[tuple[str, int] | None]:
    reading = Reading(root, ImportOptions(**options))
    frames = FilesOfPictures(files, root, reading)
    return [frames.of(file) for file in files]


def pictures(folder: Path, *numbers: int) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (90, 60)).save(folder / f"{number:06d}.jpg")


@pytest.mark.parametrize(
    ("name", "video", "frame"),
    [("one/frame_000012", "one", 12), ("12", "here", 12), ("a_b_12", "a_b", 12), ("one/two_12", "one/two", 12)],
)
def test_names_say_video_and_frame(tmp_path: Path, name: str, video: str, frame: int) -> None:
    assert places(tmp_path / "here", tmp_path / "here" / f"{name}.json") == [(video, frame)]


@pytest.mark.parametrize("beside", [True, False])
def test_numbered_pictures_are_the_video(tmp_path: Path, beside: bool) -> None:
    """Every tenth frame was kept: that of 000020 is the third picture, unless the video is elsewhere."""
    folder = tmp_path / ("data" if beside else "Annotations") / "one"
    pictures(folder if beside else tmp_path / "JPEGImages" / "one", 0, 10, 20)
    files = [folder / "000010.xml", folder / "000020.xml", folder / "000030.xml"]
    assert places(folder.parent, *files) == [("one", 1), ("one", 2), None]
    assert places(folder, *files, video="{name}.mp4") == [("one", 10), ("one", 20), ("one", 30)]


def test_a_folder_annotations_is_called_as_what_holds_it(tmp_path: Path) -> None:
    pictures(tmp_path / "one" / "JPEGImages", 5, 6)
    file = tmp_path / "one" / "Annotations" / "000006.xml"
    assert places(file.parent, file) == places(tmp_path / "one", file) == [("one", 1)]
    assert places(tmp_path, file) == [("one", 1)]
