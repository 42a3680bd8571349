"""`rts-batch evaluate`: prepare the manifest of a benchmark, score a run on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rts_batch.cli.options import JsonOption, RunArgument
from rts_batch.cli.output import print_json
from rts_batch.errors import UsageError
from rts_batch.words import counted

BenchmarkArgument = Annotated[
    str,
    typer.Argument(
        metavar="BENCHMARK",
        help="lasot, nfs, uav123, trackingnet, got10k, vot2020-st, davis2016, davis2017 or youtubevos2019.",
    ),
]
RootArgument = Annotated[
    str, typer.Argument(metavar="ROOT", help="The folder that the benchmark is unpacked in; a local or mounted path.")
]


def prepare(
    benchmark: BenchmarkArgument,
    root: RootArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="The manifest to write, *.csv; path or URI.")],
    init: Annotated[
        Literal["mask", "box"] | None,
        typer.Option(help="What the tracker is given. [default: masks where the benchmark has them]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the manifest with which `rts-batch submit` tracks a whole benchmark."""
    from rts_batch.evaluation.prepare import prepare as write_manifest

    done = write_manifest(benchmark, _local(root), output, init=init)
    if as_json:
        content = {"manifest": output, "sequences": done.sequences, "targets": done.targets, "init": done.init}
        print_json("manifest", content)
    else:
        sequences, targets = counted(done.sequences, "sequence"), counted(done.targets, "target")
        print(f"{output}: {sequences}, {targets}, each given by a {done.init}")


def score(
    benchmark: BenchmarkArgument,
    root: RootArgument,
    run: RunArgument,
    as_json: JsonOption = False,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write the tables, with every sequence.")] = None,
    plots: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write success, precision or EAO plots as SVG (boxes, VOT).")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the ZIP for the server of trackingnet or youtubevos2019; no scores."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out the sequences that are not finished.")] = False,
) -> None:
    """Score a run on a benchmark, beside the values that the paper reports."""
    from rts_batch.evaluation.archives import write_archive
    from rts_batch.evaluation.plots import to_svg
    from rts_batch.evaluation.scoring import score as judge
    from rts_batch.evaluation.tables import to_markdown
    from rts_batch.io.storage import files, uris

    if archive is not None:
        sequences = write_archive(benchmark, _local(root), run, archive)
        if as_json:
            print_json("archive", {"archive": archive, "sequences": sequences})
        else:
            print(f"{archive}: {sequences} sequences")
        return
    report = judge(benchmark, _local(root), run, partial=partial)
    if markdown is not None:
        files.put_bytes(markdown, to_markdown(report).encode())
    if plots is not None:
        if not report.curves:
            raise UsageError(f"{report.title} has no curves; leave --plots out")
        for name in report.curves:
            files.put_bytes(uris.join(plots, f"{name}.svg"), to_svg(report, name).encode())
    if as_json:
        print_json("scores", asdict(report))
    else:
        print(to_markdown(report, sequences=False), end="")


def calibrate(
    benchmark: BenchmarkArgument,
    root: RootArgument,
    run: RunArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="The weights file to write, *.safetensors.")],
    weights: Annotated[str, typer.Option(help="Those that the run was made with.")] = "rts-mini",
    as_json: JsonOption = False,
) -> None:
    """Fit the quality that weights give their masks to a run on annotated footage."""
    from rts_batch.evaluation.calibration import calibrated
    from rts_batch.weights.registry import load_weights, save_weights

    before = load_weights(weights)
    after = calibrated(before, benchmark, _local(root), run)
    save_weights(after, output, half=before.metadata["stored_as"] == "float16")
    quality = after.quality
    assert quality is not None
    if as_json:
        print_json("calibration", {"weights": output, "origin": quality.origin, "threshold": quality.threshold})
    else:
        print(f"{output}: {quality.origin}; uncertain below {quality.threshold}")


def _local(root: str) -> Path:
    from rts_batch.io.storage import uris

    path = uris.local_path(root)
    if path is None or not path.is_dir():
        raise UsageError(f"{uris.safe_uri(root)} is no local folder; unpack the benchmark on a disk, or mount it")
    return path
