"""Curves as files."""

from __future__ import annotations

from pathlib import Path

from rts_batch.training.curves import summarize_training


def test_a_stage_is_summed_up_from_its_curves(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(
        "iteration,loss,seconds,seconds_waiting\n10,1,3,0.5\n20,1,1,0.1\n30,1,2,0.2\n", encoding="utf-8"
    )
    (tmp_path / "evaluation.csv").write_text("iteration,jaccard\n10,0.5\n20,0.75\n30,0.7\n", encoding="utf-8")
    assert summarize_training(tmp_path) == {
        "steps": 30,
        "minutes": 1.0,
        "seconds_per_step": 2.0,
        "seconds_waiting_for_clips": 0.2,
        "held_out_jaccard": 0.75,
        "best_step": 20,
    }
