"""`rts-batch train`, `train-export` and `train-boxes`."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rts_batch.cli.options import JsonOption
from rts_batch.cli.output import print_json
from rts_batch.errors import EXIT_INTERRUPTED, ClusterError, UsageError

# The commands import torch themselves: `rts-batch --help` shall not wait for it.


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file: settings, data, initial weights.")],
    out: Annotated[Path, typer.Option(help="The training's folder; the same folder goes on with it.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
    loaders: Annotated[int, typer.Option(min=0, help="Processes that make clips; 0 makes them in this one.")] = 2,
    stop_after: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which to write a checkpoint and stop.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network as a file says, on this machine. Ctrl-C writes a checkpoint; the same command goes on."""
    from rts_batch.training.recipe import read_recipe
    from rts_batch.training.run import run_recipe

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    def report(iteration: int, row: Mapping[str, float]) -> None:
        if as_json:
            print_json("status", {"iteration": iteration, **row})

    with _stopping(stop_after) as (stop, interrupted):
        outcome = run_recipe(
            read_recipe(config), out, device=_device(device), loaders=loaders, stop=stop, report=report
        )
        if as_json:
            print_json("summary", {"outcome": outcome, "folder": str(out)})
        if outcome == "stopped":
            print(f"stopped; the same command goes on: rts-batch train {config} --out {out}", file=sys.stderr)
        if interrupted():
            raise typer.Exit(EXIT_INTERRUPTED)


def train_export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The training's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, *.safetensors.")],
    sta: Annotated[Path | None, typer.Option(help="The folder of a box-to-mask training: adds that network.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16, half the size.")] = False,
    licence: Annotated[str, typer.Option(help="Recorded in the file.")] = "not stated",
) -> None:
    """Write a training's weights into one file that runs load. Prints its fingerprint."""
    from rts_batch.training.run import trained_weights
    from rts_batch.weights.registry import load_weights, save_weights

    if output.suffix != ".safetensors":
        raise UsageError(f"the output is {str(output)!r}; give it a name that ends in .safetensors")
    save_weights(trained_weights(folder, sta=sta, licence=licence), output, half=half)
    print(load_weights(output).fingerprint)


def train_boxes(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="got10k or lasot.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write, *.parquet.")],
    sequences: Annotated[Path | None, typer.Option(help="Text file with one sequence a line; default all.")] = None,
) -> None:
    """Write a manifest of every annotated box of a data set, so that a run of it makes the masks to train on."""
    from rts_batch.training.clips.datasets import got10k, lasot
    from rts_batch.training.clips.datasets.box_manifest import write_box_manifest

    if kind not in ("got10k", "lasot"):
        raise UsageError(f"the data set is {kind!r}; valid are got10k and lasot")
    if output.suffix != ".parquet":
        raise UsageError(f"the output is {str(output)!r}; give it a name that ends in .parquet")
    if not output.parent.is_dir():
        raise UsageError(f"the folder {str(output.parent)!r} of the output does not exist; make it first")
    open_boxes = got10k if kind == "got10k" else lasot
    rows, skipped = write_box_manifest(open_boxes(root, masks=None, sequences=sequences), output)
    for reason in skipped:
        print(f"skipped {reason}", file=sys.stderr)
    print(f"{rows} boxes, {len(skipped)} sequences skipped", file=sys.stderr)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if found is None:
        raise UsageError(f"--device {name!r} is no device; give auto, cpu, cuda, or cuda:1 for the second GPU")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ClusterError(f"the device is {name!r}, but PyTorch sees no GPU; use cpu or auto")
    if int(found[1] or 0) >= max(1, torch.cuda.device_count()):
        raise ClusterError(f"the device is {name!r}, but PyTorch sees {torch.cuda.device_count()} GPUs, from cuda:0 on")
    return name


@contextmanager
def _stopping(minutes: float | None) -> Iterator[tuple[Callable[[], bool], Callable[[], bool]]]:
    """Yield whether to stop, after some minutes or the first Ctrl-C, and whether it was Ctrl-C."""
    pressed = threading.Event()
    end = None if minutes is None else time.monotonic() + 60 * minutes

    def press(signum: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        print("finishing the iteration and writing a checkpoint; Ctrl-C again stops at once", file=sys.stderr)

    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: pressed.is_set() or (end is not None and time.monotonic() >= end), pressed.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
