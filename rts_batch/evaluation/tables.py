"""A report as Markdown."""

from __future__ import annotations

from typing import Final

from rts_batch.evaluation.scoring import BenchmarkScores

_NAMED: Final = 10
"""Objects that a sentence lists."""

_TITLES: Final = {
    "success": "success (AUC)",
    "precision": "precision",
    "normalised_precision": "normalised precision",
    "ao": "AO",
    "sr50": "SR 0.5",
    "sr75": "SR 0.75",
    "j_and_f": "J&F",
    "j_mean": "J mean",
    "j_recall": "J recall",
    "j_decay": "J decay",
    "f_mean": "F mean",
    "f_recall": "F recall",
    "f_decay": "F decay",
    "g": "G",
    "eao": "EAO",
    "accuracy": "accuracy",
    "robustness": "robustness",
    "j": "J",
    "f": "F",
    "j_seen": "J seen",
    "j_unseen": "J unseen",
    "f_seen": "F seen",
    "f_unseen": "F unseen",
}


def to_markdown(report: BenchmarkScores, *, sequences: bool = True) -> str:
    """The scores in percent beside the paper's, then every sequence, the worst first.

    Args:
        report: the scores.
        sequences: with the table of sequences.
    """
    lines = [f"# {_cell(report.title)}", "", f"- run: `{report.run}`"]
    if report.weights:
        lines.append(f"- weights: {', '.join(f'`{fingerprint}`' for fingerprint in report.weights)}")
    if report.init:
        lines.append(f"- each target given by a {report.init}")
    lines.append("")
    if report.missing:
        total = len(report.missing) + len({name.split("/")[0] for name in report.sequences})
        lines += [
            f"**Partial: {len(report.missing)} of {total} sequences are not finished, so the numbers are not the "
            "benchmark's.**",
            "",
        ]
    if report.uncounted:
        names = ", ".join(map(_cell, report.uncounted[:_NAMED])) + (" …" if len(report.uncounted) > _NAMED else "")
        lines += [f"Not counted, as annotated on the given frame only: {names}.", ""]
    paper = bool(report.published)
    lines += ["| measure | this run |" + " paper (RTS) |" * paper, "|---|---:|" + "---:|" * paper]
    for name, value in report.measures.items():
        mark = " ?" if name in report.unchecked else ""
        published = f" {report.published[name]:.1f}{mark} |" if name in report.published else " |" * paper
        lines.append(f"| {_TITLES.get(name, name)} | {100 * value:.1f} |{published}")
    if report.unchecked:
        lines += ["", "?: written from memory; compare with the paper's own table before you quote it."]
    if sequences and report.sequences:
        columns = list(next(iter(report.sequences.values())))
        lines += [
            "",
            "| sequence | " + " | ".join(_TITLES.get(name, name) for name in columns) + " |",
            "|---" + "|---:" * len(columns) + "|",
        ]
        ordered = sorted(report.sequences.items(), key=lambda item: (item[1][columns[-1]], item[0]))
        for name, values in ordered:
            lines.append(f"| {_cell(name)} | " + " | ".join(f"{100 * values[column]:.1f}" for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Names come from folders: they must not break the table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
