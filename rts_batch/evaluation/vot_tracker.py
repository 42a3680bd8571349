"""The tracker as vot-toolkit launches it: a program that speaks TraX on its standard streams.

In the `trackers.ini` of a VOT workspace::

    [RTS]
    label = RTS
    protocol = trax
    command = /path/to/venv/bin/python -m rts_batch.evaluation.vot_tracker --weights rts50.safetensors

It needs the package vot-trax (`pip install 'rts-batch[vot]'`). The toolkit itself may live in another environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rts_batch.errors import RtsBatchError, UsageError, VideoError
from rts_batch.masks import Box, TrackedFrame
from rts_batch.tracking.fast import fast_tracker
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights


class FrameTracker(Protocol):
    """What is served; `rts_batch.tracking.tracker.Tracker` is one."""

    def start(
        self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Box | None = None
    ) -> TrackedFrame: ...

    def step(self, frame: NDArray[np.uint8]) -> TrackedFrame: ...


def serve(tracker: FrameTracker) -> None:
    """Answer a TraX client's requests until it says goodbye; each start begins anew.

    Raises:
        UsageError: vot-trax is not installed, or the client marks not exactly one target.
        VideoError: an image cannot be read.
        PromptError: the mark does not fit the image.
    """
    trax = _trax()
    # Masks come and go as masks; a rectangle is taken too, so that data sets of boxes can be run.
    regions = [trax.Region.MASK, trax.Region.RECTANGLE]
    with trax.Server(regions, [trax.Image.PATH], tracker_name="RTS", tracker_family="RTS") as server:
        while True:
            request = server.wait()
            if request.type == trax.TraxStatus.QUIT:
                return
            image = _read_image(request.image["color"].path())
            if request.type == trax.TraxStatus.INITIALIZE:
                if len(request.objects) != 1:
                    raise UsageError(f"this tracker follows one target; the client marked {len(request.objects)}")
                found = tracker.start(image, **_mark(request.objects[0][0], image, trax))
            else:
                found = tracker.step(image)
            answer = trax.Mask.create(np.ascontiguousarray(found.mask.astype(np.uint8)))
            server.status([(answer, {"confidence": 1.0})])


def _trax() -> Any:
    try:
        import trax
    except ImportError as error:
        raise UsageError(f"vot-trax cannot be imported ({error}); pip install 'rts-batch[vot]'") from None
    return trax


def _read_image(path: str) -> NDArray[np.uint8]:
    """[H, W, 3] RGB."""
    pixels: NDArray[np.uint8] | None = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise VideoError(f"{path} cannot be read as an image")
    return pixels


def _mark(region: Any, image: NDArray[np.uint8], trax: Any) -> Mapping[str, Any]:
    """The target as `FrameTracker.start` takes it. A client may send a mask without the empty part of the image."""
    if region.type == trax.Region.RECTANGLE:
        return {"box": region.bounds()}
    part = region.array() > 0
    x, y = region.offset()
    height, width, _ = image.shape
    mask = np.zeros((height, width), bool)
    inside = part[: max(height - y, 0), : max(width - x, 0)]
    mask[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return {"mask": mask}


def main() -> int:
    """The program; the exit code is that of the error, if any."""
    parser = argparse.ArgumentParser(description="RTS as a TraX tracker, for vot-toolkit.")
    parser.add_argument("--weights", default="rts-mini", help="name or path")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    try:
        weights = load_weights(options.weights)
        model, sta = fast_networks(weights, device)
        serve(fast_tracker(model, weights.tracker_config, sta=sta))
    except RtsBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
