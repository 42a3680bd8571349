"""What a run shows to Prometheus through Ray. The labels name the run's folder, never a video."""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge

from rts_batch.actors.progress import RunProgress

SECONDS = 5.0
"""Time between two updates; Ray exports no more often."""

COUNTERS = {
    "rts_batch_videos_done": "Videos whose masks this run has put in place.",
    "rts_batch_videos_failed": "Videos that this run has given up.",
    "rts_batch_retries": "Attempts that failed and were, or will be, made again.",
    "rts_batch_frames": "Frames tracked.",
}
GAUGES = {
    "rts_batch_videos_queued": "Videos that wait.",
    "rts_batch_videos_running": "Videos under way.",
    "rts_batch_workers": "Workers that the run has, those that are starting included.",
}


class RunMetrics:
    """Exports a run's progress; `update` may be called as often as one likes."""

    def __init__(self, run: str) -> None:
        labels = {"run": run}
        self._counters = {name: Counter(name, description=text, tag_keys=("run",)) for name, text in COUNTERS.items()}
        self._gauges = {name: Gauge(name, description=text, tag_keys=("run",)) for name, text in GAUGES.items()}
        for metric in (*self._counters.values(), *self._gauges.values()):
            metric.set_default_tags(labels)
        self._told = dict.fromkeys(COUNTERS, 0)
        self._due = 0.0

    def update(self, progress: RunProgress, *, queued: int, workers: int) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SECONDS
        counts = (progress.done, progress.failed, progress.retries, progress.frames)
        for name, count in zip(COUNTERS, counts, strict=True):
            if count > self._told[name]:  # a lost attempt takes frames back, a counter cannot
                self._counters[name].inc(count - self._told[name])
                self._told[name] = count
        for name, value in zip(GAUGES, (queued, len(progress.running), workers), strict=True):
            self._gauges[name].set(value)
