"""The command line: it mounts the commands, which parse, call one function and print.

Heavy imports wait until a command needs them: `rts-batch --help` knows neither PyTorch, Ray nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from rts_batch.cli.check import probe, validate, verify
from rts_batch.cli.doctor import doctor
from rts_batch.cli.evaluate import calibrate, prepare, score
from rts_batch.cli.export import export
from rts_batch.cli.importing import (
    from_coco,
    from_cvat,
    from_detections,
    from_fiftyone,
    from_label_studio,
    from_labelme,
    from_masks,
    from_voc,
    from_yolo,
)
from rts_batch.cli.output import telling_errors
from rts_batch.cli.read import compact, show
from rts_batch.cli.resume import resume, retry
from rts_batch.cli.review import mark, review
from rts_batch.cli.sections import SectionedCommand, SectionedGroup
from rts_batch.cli.status import cancel, status
from rts_batch.cli.submit import plan, submit
from rts_batch.cli.train import train, train_boxes, train_export
from rts_batch.cli.weights import get, import_, inspect
from rts_batch.version import __version__


def _group(
    help: str, sections: Mapping[str, Mapping[str, Callable[..., None]]], *, completion: bool = False
) -> typer.Typer:
    """A group of commands by name, in sections by title."""
    group = typer.Typer(
        help=help,
        cls=SectionedGroup,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},  # a group's commands take them from it
    )
    for title, commands in sections.items():
        for name, command in commands.items():
            group.command(name, cls=SectionedCommand, rich_help_panel=title)(telling_errors(command))
    return group


RUNNING, AROUND, RESULTS, NETWORKS = "Running", "Before and after a run", "Results", "Networks"

app = _group(
    "Masks of marked objects through thousands of videos: the RTS tracker on Ray.",
    {
        RUNNING: {
            "submit": submit,
            "plan": plan,
            "status": status,
            "cancel": cancel,
            "resume": resume,
            "retry": retry,
        },
        AROUND: {"mark": mark, "doctor": doctor, "validate": validate, "probe": probe, "verify": verify},
        RESULTS: {"show": show, "review": review, "export": export, "compact": compact},
        NETWORKS: {"train": train, "train-export": train_export, "train-boxes": train_boxes},
    },
    completion=True,
)
app.add_typer(
    _group(
        "A manifest from other tools' annotations.",
        {
            "Commands": {
                "from-coco": from_coco,
                "from-yolo": from_yolo,
                "from-cvat": from_cvat,
                "from-label-studio": from_label_studio,
                "from-labelme": from_labelme,
                "from-voc": from_voc,
                "from-masks": from_masks,
                "from-detections": from_detections,
                "from-fiftyone": from_fiftyone,
            }
        },
    ),
    name="manifest",
    rich_help_panel=AROUND,
)
app.add_typer(
    _group(
        "Fetch, import and inspect networks' weights.",
        {"Commands": {"get": get, "import": import_, "inspect": inspect}},
    ),
    name="weights",
    rich_help_panel=NETWORKS,
)
app.add_typer(
    _group(
        "The benchmarks: make the manifest of one, score a run on it, fit the quality to it.",
        {"Commands": {"prepare": prepare, "score": score, "calibrate": calibrate}},
    ),
    name="evaluate",
    rich_help_panel=NETWORKS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rts-batch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The `rts-batch` command."""
    app(prog_name="rts-batch")
