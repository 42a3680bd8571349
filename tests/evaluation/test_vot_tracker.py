"""The tracker as vot-toolkit launches it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rts_batch.evaluation.measures.curves import region_similarity
from rts_batch.evaluation.measures.vot import vot_scores
from rts_batch.tracking.fast import fast_tracker
from rts_batch.weights.inference import fast_networks
from rts_batch.weights.registry import load_weights
from tests.support.environments import environment_with
from tests.support.places import REPOSITORY
from tests.support.vot_dataset import SEQUENCES, make_dataset, overlaps

GOLDEN = json.loads((REPOSITORY / "tests" / "support" / "fixtures" / "vot2020-st.json").read_text())


TOOLKIT = ("vot-toolkit==0.7.4", "attributee==0.1.9")
"""The last release whose multi-start experiment works; it needs an older attributee than pip would choose."""


@pytest.mark.long
def test_the_tracker_answers_over_trax_as_it_does_by_itself(tmp_path: Path) -> None:
    trax = pytest.importorskip("trax", reason="pip install vot-trax")
    from trax.client import Client

    random = np.random.default_rng(0)
    background = random.integers(60, 90, (120, 160, 3), np.uint8)
    images, masks = [], []
    for index in range(3):
        mask = np.zeros((120, 160), bool)
        mask[40:80, 50 + 4 * index : 90 + 4 * index] = True
        images.append(np.where(mask[..., None], np.uint8([220, 40, 30]), background).astype(np.uint8))
        masks.append(mask)
        Image.fromarray(images[-1]).save(tmp_path / f"{index}.png")
    weights = load_weights("rts-mini")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more add up in another order, and a pixel may differ
    tracker = fast_tracker(fast_networks(weights, "cpu")[0], weights.tracker_config)
    expected = [tracker.start(images[0], mask=masks[0]).mask, *(tracker.step(image).mask for image in images[1:])]
    torch.set_num_threads(threads)

    command = [sys.executable, "-m", "rts_batch.evaluation.vot_tracker", "--device", "cpu", "--threads", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        client = Client(stream=(process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None)

        def frame(index: int) -> dict[str, Any]:
            return {"color": trax.FileImage.create(str(tmp_path / f"{index}.png"))}

        for _ in range(2):  # another start begins anew
            part = np.ascontiguousarray(masks[0][40:80, 50:90].view(np.uint8))
            start = trax.Mask.create(part, x=50, y=40)
            answers = [client.initialize(frame(0), [(start, {})], {})]
            answers += [client.frame(frame(index), {}, []) for index in (1, 2)]
            found = [answer[0][0][0].array(True) > 0 for answer in answers]
            for ours, theirs in zip(found, expected, strict=True):
                assert (ours[: theirs.shape[0], : theirs.shape[1]] == theirs).all()
        client.quit()
    assert process.returncode == 0
    assert region_similarity(expected[2], masks[2]) > 0.5


@pytest.mark.slow
def test_the_toolkit_launches_the_tracker_and_scores_it_alike(tmp_path: Path) -> None:
    """vot-toolkit (GPL-3) runs as a program of its own, in an environment of its own."""
    pytest.importorskip("trax", reason="pip install vot-trax")
    programs = environment_with(tmp_path / "environment", *TOOLKIT).parent

    workspace = tmp_path / "workspace"
    vot(programs, "initialize", "vot2020/shortterm", "--workspace", workspace, "--nodownload")
    (workspace / "sequences").rmdir()
    make_dataset(workspace / "sequences")
    program = REPOSITORY / "tests" / "support" / "vot_scripted.py"
    (workspace / "trackers.ini").write_text(
        f"[scripted]\nlabel = scripted\nprotocol = trax\ncommand = {sys.executable} {program}\n"
    )
    vot(programs, "evaluate", "--workspace", workspace, "scripted")
    vot(programs, "analysis", "--workspace", workspace, "--format", "json", "--name", "answer", "scripted")
    answer = json.loads((workspace / "analysis" / "answer.json").read_text())
    eao, curve, accuracy_robustness = answer["results"]["baseline"]["results"]
    scores = vot_scores(overlaps(), SEQUENCES)
    assert scores.eao == pytest.approx(eao[0][0], abs=1e-9)
    assert scores.curve == pytest.approx(np.array(curve[0][0], float), abs=1e-9)
    assert (scores.accuracy, scores.robustness) == pytest.approx(tuple(accuracy_robustness[0][:2]), abs=1e-9)
    assert eao[0][0] == pytest.approx(GOLDEN["eao"], abs=1e-9)


def vot(programs: Path, *arguments: object) -> None:
    command = [str(programs / "vot"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
