"""The scripted tracker of `tests.support.vot_dataset` as a program of vot-toolkit's, served by our own loop."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rts_batch.evaluation.vot_tracker import serve
from tests.support.vot_dataset import place, scripted_mask, truth


class Scripted:
    """Answers what the script says for the sequence and the frame that the image names."""

    def start(self, frame: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, box: Any = None) -> Any:
        sequence, self.anchor = place(frame)
        assert mask is not None
        assert (mask == truth(sequence, self.anchor)).all()
        return SimpleNamespace(mask=mask)

    def step(self, frame: NDArray[np.uint8]) -> Any:
        sequence, index = place(frame)
        return SimpleNamespace(mask=scripted_mask(sequence, self.anchor, index))


if __name__ == "__main__":
    serve(Scripted())
