"""How one submission runs, and how much of a manifest it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Final, Literal, get_args

from rts_batch.config import Overlap, ProfileChoice, TrackerConfig
from rts_batch.errors import SettingsError
from rts_batch.io.video.limits import DecoderName, SpoolLimits

DeviceName = Literal["auto", "cpu", "cuda"]

_CHOICES: Final = {"device": DeviceName, "profile": ProfileChoice, "overlap": Overlap, "decoder": DecoderName}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How one submission runs. `weights`, `profile`, `overlap`, `tracker` and `tracker_options` decide the masks."""

    weights: str | None = None
    """Name, path or URI; None takes the weights that the package ships."""
    tracker_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrackerConfig` to be set otherwise than the weights' own configuration says."""
    tracker: str = "rts_batch.worker.rts:RtsFactory"
    """Import path of the tracker; another one is for tests."""
    device: DeviceName = "auto"
    profile: ProfileChoice = "auto"
    """Precision: float32; TensorFloat-32 products (CUDA only); or bfloat16 but for the learners and their features.

    `auto` is bfloat16 where the device multiplies it in hardware, else float32; a run keeps what it began with.
    """
    overlap: Overlap = "merge"
    """What becomes of targets of one video that share pixels."""
    decoder: DecoderName = "auto"
    spool_quota: float | None = None
    """GiB of disk for the videos that a worker copies from a store; None leaves the disk itself as the limit."""
    strict_video: bool = False
    """A video with damage fails; otherwise the damage is counted in its report."""
    workers: int | None = None
    """Worker processes at most; None takes one per GPU share, on CPUs what suits the network (`actors/sizing.py`)."""
    min_workers: int = 1
    """Workers that are kept as long as any video waits."""
    threads_per_worker: int | None = None
    """CPU threads of each worker; None takes the run's own number, or cores // workers in a new run."""
    lanes: int | None = None
    """Videos that each worker tracks at the same time; None takes the run's own number, or 1 in a new run."""
    gpus_per_worker: float = 1.0
    cpus_per_worker: float | None = None
    """What Ray sets aside for each worker, which does not limit its threads; None takes one for every two lanes."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of the cluster that each worker takes."""
    stall_timeout: float = 600.0
    """Seconds without a further frame after which a video counts as hung."""
    checkpoint_every: float = 300.0
    """Seconds of work on one video between two checkpoints of it; 0 writes none."""
    keep_checkpoints: bool = False
    """All of them stay when the video is done, so that after corrections it is not tracked again from its beginning."""
    address: str = "local"
    """`local` starts a Ray of its own on this machine; anything else is the address of a running cluster."""

    def __post_init__(self) -> None:
        if self.weights == "":
            raise SettingsError("the weights have no name; give a name, a path or a URI")
        if not all(name.strip() for name in self.resources):
            raise SettingsError("a resource has no name; give NAME=AMOUNT, spot=1 for example")
        for name, choice in _CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choice):
                raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(get_args(choice))}")
        self._refuse_endless()
        for name in ("workers", "min_workers", "threads_per_worker", "lanes"):
            _check_count(name, getattr(self, name))
        for name, amount in {"CPUs": self.cpus_per_worker, **self.resources}.items():
            if amount is not None and (amount <= 0 or (amount > 1 and amount % 1)):
                raise SettingsError(f"{name} per worker is {amount:g}; expected a share of one, or a whole number")
        if self.workers is not None and self.min_workers > self.workers:
            raise SettingsError(f"min workers is {self.min_workers}, more than the {self.workers} workers at most")
        if self.checkpoint_every < 0:
            raise SettingsError(f"checkpoint every {self.checkpoint_every:g} s; give 0 for none, or seconds")
        if self.keep_checkpoints and not self.checkpoint_every:
            raise SettingsError("keep checkpoints, but checkpoint every is 0, which writes none; give it seconds")
        if self.spool_quota is not None and self.spool_quota < 0:
            raise SettingsError(f"spool quota is {self.spool_quota:g} GiB; give 0 to copy no video to disk, or more")
        if self.stall_timeout < 1:
            raise SettingsError(f"stall timeout is {self.stall_timeout:g} s; give at least 1, more than a frame takes")
        if not 0 < self.gpus_per_worker <= 16 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise SettingsError(f"GPUs per worker is {self.gpus_per_worker:g}; give a share of one, or a whole number")

    def _refuse_endless(self) -> None:
        """Raise on amounts and times that are no numbers; of `nan` no comparison below would be true."""
        names = ("spool_quota", "stall_timeout", "checkpoint_every", "gpus_per_worker", "cpus_per_worker")
        for name, value in {**{name: getattr(self, name) for name in names}, **self.resources}.items():
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise SettingsError(f"{name.replace('_', ' ')} is {value!r}; it must be a finite number")

    def spool_limits(self, lanes: int) -> SpoolLimits:
        return SpoolLimits(quota=None if self.spool_quota is None else int(self.spool_quota * 2**30), videos=lanes + 1)

    def tracker_config(self, default: TrackerConfig) -> TrackerConfig:
        """The weights' own tracker configuration with this run's options put in."""
        given = self.tracker_options.items()
        options: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
        return dataclasses.replace(default, **options)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """Take what `to_dict` gave; what another version wrote beside it is left out."""
        return cls(**{name: values[name] for name in (item.name for item in dataclasses.fields(cls)) if name in values})


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if value is not None and not (isinstance(value, Integral) and int(value) >= least):
        raise SettingsError(f"{name.replace('_', ' ')} is {value!r}; it must be a whole number, at least {least}")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The `index`-th of `count` parts of a manifest, from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SettingsError(f"shard {self.index}/{self.count}: the first number goes from 1 to the second")

    @classmethod
    def parse(cls, text: str) -> Shard:
        try:
            index, count = (int(part) for part in text.split("/"))
        except ValueError:
            raise SettingsError(f"shard {text!r}: expected i/n, 2/8 for example") from None
        return cls(index=index, count=count)

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What of a manifest one submission does."""

    shard: Shard | None = None
    limit: int | None = None
    """At most so many videos, the first that are left."""
    only_failed: bool = False
    """Only videos that an earlier submission gave up."""
    redo_changed: bool = False
    """Track videos again that are done and whose rows have changed since; otherwise such a manifest is refused."""
    max_failures: int | None = None
    """Hand out nothing more once so many videos have been given up."""

    def __post_init__(self) -> None:
        if not isinstance(self.shard, Shard | None):
            raise SettingsError(f"shard is {self.shard!r}; expected a Shard, as Shard.parse('2/8') gives")
        _check_count("limit", self.limit, least=0)
        _check_count("max_failures", self.max_failures)
