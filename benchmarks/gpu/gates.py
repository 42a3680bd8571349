"""Holds the profiles to their gates, clip by clip: see `benchmarks.profiles`, whose measures these are.

python3 -m benchmarks.gpu.gates --davis DAVIS --clips 4 --network rts-mini --out gates.json
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks.gpu.subject import Subject, parser
from benchmarks.profiles import FREE_RUN, GATES, free_run, same_state, tracker_of
from rts_batch.config import Profile


def main() -> int:
    made = parser(__doc__, profiles=("tf32", "bf16"))
    made.set_defaults(network="rts-mini")
    made.add_argument("--davis", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p")
    made.add_argument("--clips", type=int, default=4, help="the first so many")
    made.add_argument("--frames", type=int, default=60, help="of each")
    options = made.parse_args()
    if options.small:
        options.clips, options.frames = 1, 3
    notes = Subject(options).notes(options.out, clips=options.clips, length=options.frames)
    profiles: list[Profile] = [name for name in GATES if name in options.profiles]
    names = sorted(folder.name for folder in (options.davis / "JPEGImages/480p").iterdir())[: options.clips]
    for profile in profiles:
        for clip in names:
            notes.step(f"{profile}, {clip}", clip_measures, options.davis, clip, profile, options)
        rows = [notes.steps[key] for clip in names if (key := f"{profile}, {clip}") in notes.steps]
        if len(rows) == len(names):
            mean = {key: statistics.fmean(row[key] for row in rows) for key in ("same state", "J exact", "J")}
            passed = mean["same state"] >= GATES[profile] and abs(mean["J"] - mean["J exact"]) <= FREE_RUN
            notes.step(f"{profile}, all clips", dict, **mean, passed=passed)
    return notes.finish()


def clip_measures(davis: Path, clip: str, profile: Profile, options: object) -> dict[str, float]:
    device, weights, most = options.device, options.network, options.frames  # type: ignore[attr-defined]
    count = min(len(list((davis / "JPEGImages/480p" / clip).glob("*.jpg"))), most)
    pair = (tracker_of("exact", device, weights), tracker_of(profile, device, weights))
    return {
        "same state": statistics.fmean(same_state(davis, clip, pair, count, device, profile)),
        "J exact": free_run(davis, clip, tracker_of("exact", device, weights), count),
        "J": free_run(davis, clip, tracker_of(profile, device, weights), count),
    }


if __name__ == "__main__":
    sys.exit(main())
