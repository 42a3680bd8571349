"""VOT2020-ST: layout, manifest and scores against vot-toolkit's own answers, and the tracker that it launches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rts_batch.evaluation.measures.vot import frames_before_failure, vot_scores
from tests.support.places import REPOSITORY
from tests.support.vot_dataset import SEQUENCES, overlaps

GOLDEN = json.loads((REPOSITORY / "tests" / "support" / "fixtures" / "vot2020-st.json").read_text())


def test_measures_equal_the_toolkits() -> None:
    scores = vot_scores(overlaps(), SEQUENCES)
    assert scores.eao == pytest.approx(GOLDEN["eao"], abs=1e-12)
    assert scores.accuracy == pytest.approx(GOLDEN["accuracy"], abs=1e-12)
    assert scores.robustness == pytest.approx(GOLDEN["robustness"], abs=1e-12)
    assert {name: scores.curve[int(name)] for name in GOLDEN["curve"]} == pytest.approx(GOLDEN["curve"], abs=1e-12)


def test_a_failure_is_ten_bad_frames_in_a_row() -> None:
    run = np.full(100, 0.8)
    run[20:29] = 0.1  # nine
    assert frames_before_failure(run) is None
    run[29] = 0.1
    assert frames_before_failure(run) == 20
    run[25] = 0.11
    assert frames_before_failure(run) is None
    run[91:] = 0  # nine until the end
    assert frames_before_failure(run) is None
    assert frames_before_failure(np.zeros(11)) == 1  # what is given is not judged
