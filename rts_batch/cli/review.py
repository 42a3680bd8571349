"""`rts-batch review` and `mark`: a report of a run, videos with its masks, and a page to mark and mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rts_batch.cli.options import JsonOption, MasksArgument, WeightsOption
from rts_batch.cli.output import print_json, print_left_out, watch
from rts_batch.errors import EXIT_FAILED, EXIT_SOME_FAILED, UsageError
from rts_batch.words import counted

if TYPE_CHECKING:
    from rts_batch.review.server.model import Model
    from rts_batch.review.server.serving import Serving

PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Of the page. [default: a free one]")]
NoOpenOption = Annotated[bool, typer.Option("--no-open", help="Only print the page's address.")]

# The commands import pyarrow, OpenCV and jinja2 itself: `rts-batch --help` shall not wait for them.


def review(
    run: MasksArgument,
    out: Annotated[
        str | None, typer.Option(help="The folder to write report.html and overlays/ to. [default: RUN]")
    ] = None,
    videos: Annotated[
        int, typer.Option(min=0, metavar="N", help="Videos that get a page: those that most ask for a look.")
    ] = 100,
    key_frames: Annotated[
        int, typer.Option(min=0, max=50, metavar="K", help="Pictures on each page; with 0 no video is opened.")
    ] = 6,
    overlay: Annotated[
        list[str] | None,
        typer.Option(metavar="VIDEO", help="Also write this video with its masks, as mp4; may be given several times."),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Only the overlay videos.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Open a page to look at labels and to correct them.")] = False,
    port: PortOption = 0,
    no_open: NoOpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML report of a run: what asks for a look; overlay videos; or serve a page to correct labels."""
    if serve:
        if out is not None or overlay or no_report:
            raise UsageError("--serve opens a page and writes nothing; leave out --out, --overlay and --no-report")
        _serve(run, port, open_browser=not no_open, as_json=as_json)
        return
    if no_report and not overlay:
        raise UsageError("--no-report leaves nothing to do; choose videos with --overlay VIDEO")
    from rts_batch.review.report import review_run

    reviewed = review_run(
        run, out, pages=videos, key_frames=key_frames, overlays=overlay or (), report=not no_report, watch=watch
    )
    if as_json:
        print_json("summary", asdict(reviewed))
    else:
        for uri in reviewed.overlays:
            print(f"overlay  {uri}")
        if reviewed.report:
            print(f"report   {reviewed.report}")
            in_all, pictures = counted(reviewed.videos, "video"), counted(reviewed.pictures, "key frame")
            print(f"         {in_all}, {reviewed.pages} with a page, {pictures}, {reviewed.bytes / 1e6:.1f} MB")
        print_left_out(reviewed.left_out, reviewed.warnings)
    if reviewed.left_out:
        raise typer.Exit(EXIT_SOME_FAILED if reviewed.overlays or reviewed.report else EXIT_FAILED)


def mark(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEOS...", help="Videos or folders, paths or URIs.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The manifest, a CSV; one that exists is gone on with.")],
    category: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A category to choose from; may be given several times.")
    ] = None,
    weights: WeightsOption = None,
    port: PortOption = 0,
    no_open: NoOpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Open a page to mark targets on videos, and write them into a manifest."""
    if not out.lower().endswith(".csv"):
        raise UsageError(f"-o {out}: the page writes a CSV; give a name that ends in .csv")

    def load() -> Model:
        from rts_batch.api.tracking import load as load_weights

        return load_weights(weights or "rts-mini")

    serving = _serving(load, port, open_browser=not no_open, as_json=as_json)
    from rts_batch.review.server.serving import serve_marking

    serve_marking(videos, out, serving, categories=category or ())


def _serve(run: str, port: int, *, open_browser: bool, as_json: bool) -> None:
    serving = _serving(lambda: _model_of(run), port, open_browser=open_browser, as_json=as_json)
    from rts_batch.review.server.serving import serve_run

    serve_run(run, serving)


def _serving(load: Callable[[], Model], port: int, *, open_browser: bool, as_json: bool) -> Serving:
    try:
        from rts_batch.review.server.serving import Serving
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError("the page needs the extra review: pip install 'rts-batch[review]'") from None

    def announce(address: str) -> None:
        if as_json:
            print_json("serving", {"address": address})
        else:
            print(f"page     {address}\n         for this machine only; Ctrl+C ends it", flush=True)

    return Serving(port=port, load=load, announce=announce, open_browser=open_browser, watch=watch)


def _model_of(run: str) -> Model:
    """The weights that the run was made with, on this machine."""
    from rts_batch.api.tracking import load
    from rts_batch.runs.folder import RunFolder
    from rts_batch.runs.settings import RunSettings

    record = RunFolder(run).record()
    settings = RunSettings.from_dict(record.settings if record is not None else {})
    known = settings.tracker == RunSettings.tracker  # another one has weights of another kind
    return load((settings.weights if known else None) or "rts-mini", profile=settings.profile, overlap=settings.overlap)
