"""What a budget of corrections buys in a run of many clips: frames chosen by quality, at equal steps and by chance.

    python -m benchmarks.review_clips INDEX [INDEX…] WORK_FOLDER --out benchmarks/results/review-clips.json
    python -m benchmarks.review_clips INDEX [INDEX…] WORK_FOLDER --direction bidirectional --seeds --out …

Clips of held-out pictures and of real footage, every second one started from a box, are tracked once. Then, for each
budget and each way of choosing, so many frames are marked with their true masks, and the clips tracked again with them.
Frames without the target are passed over: nobody can draw there. Mean IoU over all frames but the prompts'; "others"
leaves out those that any of the choices corrected. What is finished stays in the work folder: the same command goes on.

With `--direction bidirectional` what lies between two prompts is tracked from either side, as in such a run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.mending import clips
from benchmarks.review_budget import BUDGETS, SEEDS, at_equal_steps, at_random
from rts_batch.io.results.seams import Side, from_behind
from rts_batch.manifest.task import Direction
from rts_batch.masks import STATES, jaccard
from rts_batch.review.tracks import Track
from rts_batch.review.worst import choose_worst
from rts_batch.runs.statistics import Statistics
from rts_batch.runs.video_masks import Target
from rts_batch.tracking.fast import fast_tracker
from rts_batch.tracking.quality import History
from rts_batch.tracking.tracker import Tracker
from rts_batch.training.clips.stills.whole_frames import TruthClip
from rts_batch.training.mini.quality_runs import start_on
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import Weights, load_weights

Frames = set[tuple[int, int]]
"""Clip and frame."""


class Row(NamedTuple):
    """What is known of a tracked frame."""

    iou: float
    quality: float | None
    state: str
    present: bool
    """Whether the target is to be seen."""


Rows = dict[tuple[int, int], Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", type=Path, nargs="+")
    parser.add_argument("work", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--direction", choices=("forward", "bidirectional"), default="forward")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of what is chosen by chance")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    tracked = ClipRun(options.indexes, options.clips, options.work, load_weights("rts-mini"), options.direction)
    before = tracked.with_corrections("none", set())
    visible = [frame for frame, row in sorted(before.items()) if row.present]
    document: dict[str, Any] = {
        "command": f"python -m benchmarks.review_clips INDEX INDEX WORK --out OUT --direction {options.direction} "
        f"--seeds {' '.join(map(str, options.seeds))}".rstrip(),
        "direction": options.direction,
        "fingerprint": tracked.weights.fingerprint,
        "clips": options.clips,
        "frames": len(before),
        "before": mean_of(before),
        "budgets": {},
    }
    for budget in BUDGETS:
        count = round(budget * len(before))
        choices = {
            "quality": by_quality(before, visible, count, options.direction),
            "equal steps": at_equal_steps(visible, count),
            **{f"random {seed}": at_random(visible, count, seed) for seed in options.seeds},
        }
        ever: Frames = set().union(*choices.values())
        found = document["budgets"][str(budget)] = {
            "frames": count,
            "others_before": mean_of(before, without=ever),
        }
        for name, frames in choices.items():
            after = tracked.with_corrections(f"{budget} {name}", frames)
            found[name] = {"mean_iou": mean_of(after), "others": mean_of(after, without=ever)}
            print(budget, name, found[name], flush=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")


class ClipRun:
    """The clips, tracked by the weights' tracker with or without corrections; results are kept in `work`."""

    def __init__(
        self, indexes: Sequence[Path], count: int, work: Path, weights: Weights, direction: Direction = "forward"
    ) -> None:
        self.indexes, self.count, self.work, self.weights = list(indexes), count, work, weights
        self.direction = direction
        self.model, self.sta = fast_networks(weights, "cpu")

    def clip(self, number: int) -> TruthClip:
        """Return a clip, drawn once."""
        first = self.work / "clip-000-frames.npy"
        if not first.exists():
            for place, clip in reversed(list(enumerate(islice(clips(self.indexes), self.count)))):
                np.save(self.work / f"clip-{place:03}-masks.npy", clip.masks)
                np.save(self.work / f"clip-{place:03}-frames.npy", clip.frames)
        frames, masks = (np.load(self.work / f"clip-{number:03}-{name}.npy") for name in ("frames", "masks"))
        return TruthClip(frames, masks, np.zeros_like(masks))

    def with_corrections(self, name: str, frames: Frames) -> Rows:
        """Return each frame's row but the prompts', by clip and frame; clips without a correction are as before."""
        both = "bidirectional-" if frames and self.direction == "bidirectional" else ""
        path = self.work / f"{both}{name.replace(' ', '-')}.json"
        if not path.exists():
            rows = dict(self.with_corrections("none", set())) if frames else {}
            for number in sorted({number for number, _ in frames} or range(self.count)):
                rows |= {(number, place): row for place, row in self.rows(number, frames)}
            path.write_text(json.dumps([[*frame, *row] for frame, row in sorted(rows.items())]))
        return {(row[0], row[1]): Row(*row[2:]) for row in json.loads(path.read_text())}

    def rows(self, number: int, frames: Frames) -> Iterator[tuple[int, Row]]:
        """Track one clip, with the true masks on the frames that are corrected."""
        clip, box = self.clip(number), bool(number % 2)
        corrected = sorted(frame for place, frame in frames if place == number)
        tracker = fast_tracker(self.model, self.weights.tracker_config, sta=self.sta)
        started = History.from_prompt(start_on(tracker, clip, box=box), from_box=box)
        found = list(self.follow(tracker, started, clip, range(1, len(clip.frames)), corrected))
        if corrected and self.direction == "bidirectional":
            last = corrected[-1]
            tracker = fast_tracker(self.model, self.weights.tracker_config)
            started = History.from_prompt(tracker.start(clip.frames[last], mask=clip.masks[last]), from_box=False)
            behind = list(self.follow(tracker, started, clip, range(last - 1, 0, -1), corrected))[::-1]
            kept = from_behind(side_of(found[: len(behind)]), side_of(behind))
            found[: len(behind)] = [behind[place] if kept[place] else found[place] for place in range(len(behind))]
        yield from enumerate(found, 1)

    def follow(
        self, tracker: Tracker, history: History, clip: TruthClip, places: range, corrected: Sequence[int]
    ) -> Iterator[Row]:
        """Yield a row of each of a clip's frames at `places`, in their order."""
        assert self.weights.quality is not None
        for place in places:
            image, mask = clip.frames[place], clip.masks[place]
            if place in corrected:
                found = tracker.correct(image, mask=mask)
                history = History.from_prompt(found, from_box=False)
            else:
                found = history.judge(tracker.step(image), self.weights.quality)
            yield Row(jaccard(found.mask, mask), found.quality, found.state, bool(mask.any()))


def side_of(rows: Sequence[Row]) -> Side:
    """Return what decides between two rows of a frame."""
    qualities = np.array([np.nan if row.quality is None else row.quality for row in rows])
    return Side(qualities, np.array([row.state == "prompt" for row in rows]))


def by_quality(before: Rows, visible: Sequence[tuple[int, int]], count: int, direction: Direction) -> Frames:
    """Return what `rts-batch show RUN --worst` names first, of the frames on which something can be drawn."""
    by_clip, drawable = groupby(sorted(before.items()), key=lambda item: item[0][0]), set(visible)
    tracks = [(str(number), track_of([row for _, row in items], direction)) for number, items in by_clip]
    named = [(int(found.video_id), found.frame) for found in choose_worst(tracks, 4 * count)]
    return set([frame for frame in named if frame in drawable][:count])


def track_of(rows: Sequence[Row], direction: Direction) -> Track:
    """Return a clip's track, with the prompt before its rows."""
    length = 1 + len(rows)
    return Track(
        target=Target(object_id=1, category=None, first_frame=0, first_row=0, rows=length),
        statistics=Statistics(),
        frames=np.arange(length, dtype=np.int32),
        areas=np.zeros(length, np.int32),
        scores=np.zeros(length, np.float32),
        qualities=np.array([np.nan, *(row.quality for row in rows)], np.float32),
        states=np.array([STATES.index(state) for state in ("prompt", *(row.state for row in rows))], np.int8),
        direction=direction,
    )


def mean_of(rows: Rows, *, without: Frames | None = None) -> float:
    ious: NDArray[np.float64] = np.array([row.iou for frame, row in rows.items() if frame not in (without or ())])
    return round(float(ious.mean()), 4)


if __name__ == "__main__":
    main()
