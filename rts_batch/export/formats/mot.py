"""MOTChallenge: boxes of every target of a video in one text file."""

from __future__ import annotations

from pathlib import Path

from rts_batch.export.base import Categories, ExportFormat, ExportVideo, Written


class Mot(ExportFormat):
    """`<video>/gt/gt.txt` (frame, target, x, y, w, h, 1, class, 1), `gt/labels.txt`, `seqinfo.ini`, images in `img1/`.

    Frames, targets and classes count from 1. Boxes are as everywhere here, from 0, which is what labelling tools read
    and write; the challenge itself counts pixels from 1.
    """

    needs_mask = False

    def __init__(self, folder: Path, categories: Categories) -> None:
        super().__init__(folder, categories)
        self._videos: list[str] = []

    def add(self, video: ExportVideo) -> Written:
        written = video.written()
        folder = self.folder / video.name
        (folder / "gt").mkdir(parents=True)
        categories = {target.object_id: self.number(video, target) for target in video.targets}
        with (folder / "gt" / "gt.txt").open("w") as file:
            for index, rows in video.frames():
                for row in rows:
                    if row.box is None:
                        continue
                    box = ",".join(f"{side:.7g}" for side in row.box)
                    file.write(f"{index // video.every + 1},{row.object_id},{box},1,{categories[row.object_id]},1\n")
                    written.masks += 1
        for place, index in enumerate(range(0, video.masks.frames_total, video.every), start=1):
            written.image(index, f"{video.name}/img1/{place:06d}.jpg")
        self._describe(folder, video)
        return written

    def _describe(self, folder: Path, video: ExportVideo) -> None:
        height, width = video.masks.size
        length = len(range(0, video.masks.frames_total, video.every))
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate={(video.masks.fps or 0) / video.every:g}\n"
            f"seqLength={length}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n"
            + (f"frameStep={video.every}\n" if video.every > 1 else ""),  # ours, for `manifest from-detections`
            encoding="utf-8",
        )
        self._videos.append(video.name)

    def close(self) -> None:
        text = "".join(f"{' '.join(name.split())}\n" for name in self.categories.by_number())
        for name in self._videos:
            (self.folder / name / "gt" / "labels.txt").write_text(text, encoding="utf-8")
