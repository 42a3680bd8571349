"""The benchmarks by name: how each is laid out, prepared, scored and handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from rts_batch.errors import UsageError
from rts_batch.evaluation.layouts import boxes as box_layouts
from rts_batch.evaluation.layouts import masks as mask_layouts
from rts_batch.evaluation.layouts.sequences import BoxSequence, MaskSequence
from rts_batch.evaluation.layouts.vot import VotSequence, vot_sequences
from rts_batch.evaluation.measures.boxes import LASOT, OTB, TRACKINGNET, Protocol


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What all benchmarks have."""

    name: str
    title: str
    published: Mapping[str, float] = field(default_factory=dict)
    """What the paper's tables report for RTS, in percent, by our names of the measures; only what can be
    compared."""
    unchecked: frozenset[str] = frozenset()
    """Those of the published values that were written from memory and not found in a second source."""


@dataclass(frozen=True, kw_only=True)
class BoxBenchmark(Benchmark):
    """One target in each sequence, given by a box."""

    sequences: Callable[[Path], list[BoxSequence]]
    protocol: Protocol | None = None
    """None stands for GOT-10k's overlaps."""


@dataclass(frozen=True, kw_only=True)
class MaskBenchmark(Benchmark):
    """Objects that are given by masks."""

    sequences: Callable[[Path], list[MaskSequence]]
    kind: Literal["davis", "youtubevos"]


@dataclass(frozen=True, kw_only=True)
class VotBenchmark(Benchmark):
    """One target in each sequence, given by a mask at each of several anchors."""

    sequences: Callable[[Path], list[VotSequence]]


AnyBenchmark = BoxBenchmark | MaskBenchmark | VotBenchmark

BENCHMARKS: Final[Mapping[str, AnyBenchmark]] = {
    benchmark.name: benchmark
    for benchmark in (
        BoxBenchmark(
            name="lasot",
            title="LaSOT",
            sequences=box_layouts.lasot_sequences,
            protocol=LASOT,
            published={"success": 69.7, "precision": 73.7, "normalised_precision": 76.2},
            unchecked=frozenset({"precision", "normalised_precision"}),
        ),
        BoxBenchmark(
            name="nfs",
            title="NFS (30 frames/s)",
            sequences=box_layouts.nfs_sequences,
            protocol=OTB,
            published={"success": 65.4},
            unchecked=frozenset({"success"}),
        ),
        BoxBenchmark(
            name="uav123",
            title="UAV123",
            sequences=box_layouts.uav123_sequences,
            protocol=OTB,
            published={"success": 67.6},
            unchecked=frozenset({"success"}),
        ),
        BoxBenchmark(
            name="trackingnet",
            title="TrackingNet",
            sequences=box_layouts.trackingnet_sequences,
            protocol=TRACKINGNET,
            published={"success": 81.6},
        ),
        BoxBenchmark(
            name="got10k",
            title="GOT-10k",
            # The paper's values are of the test set, which only a server scores: nothing to compare with here.
            sequences=box_layouts.got10k_sequences,
        ),
        VotBenchmark(
            name="vot2020-st",
            title="VOT2020-ST",
            sequences=vot_sequences,
        ),
        MaskBenchmark(
            name="davis2016",
            title="DAVIS 2016",
            sequences=partial(mask_layouts.davis_sequences, year=2016),
            kind="davis",
        ),
        MaskBenchmark(
            name="davis2017",
            title="DAVIS 2017",
            sequences=partial(mask_layouts.davis_sequences, year=2017),
            kind="davis",
            published={"j_and_f": 80.2},
            unchecked=frozenset({"j_and_f"}),
        ),
        MaskBenchmark(
            name="youtubevos2019",
            title="YouTube-VOS 2019",
            sequences=mask_layouts.youtubevos_sequences,
            kind="youtubevos",
            published={"g": 79.7},
            unchecked=frozenset({"g"}),
        ),
    )
}


def find_benchmark(name: str) -> AnyBenchmark:
    """The benchmark of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"there is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
