"""Every default in one place, as frozen objects.

`ModelConfig` fixes the shapes of a network, `TrackerConfig` the procedure that runs it, `RunSettings` one run of the
pipeline. Whatever changes a mask is in the first two; a run's folder records them and takes no others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rts_batch.errors import SettingsError

BackboneName = Literal["resnet50", "mobilenetv2"]
LayerName = Literal["layer1", "layer2", "layer3", "layer4"]
DecoderName = Literal["auto", "decord", "pyav"]
DeviceName = Literal["auto", "cpu", "cuda"]
Profile = Literal["exact", "tf32", "bf16"]
Rules = Literal["code", "paper"]
Upsampling = Literal["bicubic", "bilinear"]
ExportName = Literal[
    "coco", "ytvis", "sav", "davis", "mots-png", "mots-txt", "yolo-seg", "cvat", "lasot", "got10k", "burst", "fiftyone"
]
Config = TypeVar("Config", "ModelConfig", "StaConfig", "TrackerConfig")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shapes of an RTS network. The defaults are the paper's `rts50` (spec rts-network §1.1)."""

    name: str = "rts50"
    backbone: BackboneName = "resnet50"
    feature_layers: tuple[LayerName, ...] = ("layer3",)
    """Backbone maps that F and G read; further ones are resized to the first and concatenated."""
    neck_dim: int = 0
    """Width of a 1×1 convolution between the backbone and F and G; 0 leaves it out, as the paper does."""
    feature_dim: int = 512
    """Channels C of x_s and x_c."""
    num_filters: int = 16
    """Filters of the target model, equal to the channels of label and score encodings."""
    target_filter_size: int = 3
    localisation_filter_size: int = 4
    label_encoder_dims: tuple[int, int, int] = (16, 32, 64)
    decoder_dims: tuple[int, int, int, int] = (256, 128, 128, 64)
    """Widths of the decoder at layer4, layer3, layer2, layer1; the last is halved before the output."""
    upsampling: Upsampling = "bicubic"
    """How the decoder's end reaches full resolution; `bilinear` is the light way, with its last layer at half of it."""
    hinge_threshold: float = 0.05
    activation_leak: float = 0.1
    localisation_reg: float = 0.01
    previous_mask: bool = False
    """True: the decoder also reads the previous frame's mask, coarsely. The paper's does not."""

    def __post_init__(self) -> None:
        if self.feature_dim < 1 or self.num_filters < 1:
            raise SettingsError(f"model {self.name!r}: feature_dim and num_filters must be positive")
        if not self.feature_layers:
            raise SettingsError(f"model {self.name!r}: feature_layers is empty; name at least one of layer1…layer4")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        return _from_dict(cls, values)


@dataclass(frozen=True, kw_only=True)
class StaConfig:
    """The shapes of the STA box-to-mask network (spec rts-network §11); a box encoder adds a fourth width."""

    backbone: BackboneName = "resnet50"
    feature_layers: tuple[LayerName, ...] = ("layer3",)
    neck_dim: int = 0
    feature_dim: int = 512
    num_filters: int = 16
    target_filter_size: int = 3
    label_encoder_dims: tuple[int, int, int, int] = (16, 32, 64, 128)
    decoder_dims: tuple[int, int, int, int] = (256, 128, 128, 64)
    upsampling: Upsampling = "bicubic"
    iterations: int = 5
    """Steepest-descent steps of both learners."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StaConfig:
        return _from_dict(cls, values)


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """The tracking procedure. The defaults are the published `rts50` parameters (spec rts-tracker §12)."""

    rules: Rules = "code"
    """`code`: the released tracker's memory and gating rules; `paper`: the paper's where they differ (§13)."""

    # Search region
    crop_size: tuple[int, int] = (480, 832)
    search_area_scale: float = 6.0
    max_scale_change: tuple[float, float] = (0.8, 1.2)
    min_mask_area: float = 100.0
    moment_threshold: float = 0.0
    """Probabilities below it count as nothing in the target's position and size; the released tracker counts all."""

    # Segmentation branch
    memory_size: int = 32
    learning_rate: float = 0.1
    init_samples_minimum_weight: float = 0.25
    init_iterations: int = 20
    update_iterations: int = 3
    initial_warps: tuple[tuple[float, bool], ...] = ()
    """Warped copies of the first search region that join it in the memory: (scale about the target's centre, mirrored).
    The released tracker has none."""
    update_target_model: bool = True

    # Localisation branch
    localisation_conditioning: bool = True
    """False: the decoder sees no localisation scores (Table 1)."""
    localisation_fallback: bool = True
    """False: a lost mask is not replaced by the localisation branch's answer (Table 2)."""
    not_found_threshold: float = 0.30
    """t_sc, the score below which the localisation branch says that the target is not found."""
    distractor_threshold: float = 10_000.0
    """A second peak counts above this share of the first; the published value switches it off."""
    hard_negative_threshold: float = 10_000.0
    target_neighbourhood_scale: float = 2.2
    displacement_scale: float = 0.8
    localisation_memory_size: int = 50
    localisation_learning_rate: float = 0.01
    localisation_init_iterations: int = 10
    localisation_update_iterations: int = 2
    hard_negative_iterations: int = 1
    hard_negative_learning_rate: float = 0.02
    localisation_sigma_factor: float = 0.25
    update_localisation: bool = True
    target_inside_ratio: float = 0.2

    # Schedule of both branches
    dense_frames: int = 100
    """The models are trained on every frame before this one, counting the first as 1."""
    train_interval: int = 20
    """… and on every so-manieth frame after it."""

    # Box initialisation
    sta_search_area_scale: float = 4.0
    sta_normalise: bool = False
    """False feeds STA the raw RGB crop as the released tracker does; true normalises it as STA was trained."""

    def __post_init__(self) -> None:
        if self.rules not in ("code", "paper"):
            raise SettingsError(f"rules is {self.rules!r}; valid are 'code' and 'paper'")
        if min(self.crop_size) < 32 or any(size % 16 for size in self.crop_size):
            raise SettingsError(f"crop_size is {self.crop_size}; both sides must be multiples of 16, at least 32")
        if not 0 <= self.not_found_threshold <= 10:
            raise SettingsError(f"not_found_threshold is {self.not_found_threshold}; expected a score between 0 and 10")
        smallest = (1 if self.rules == "code" else 5) + len(self.initial_warps) + 1
        if self.memory_size < smallest or self.localisation_memory_size < 6:
            raise SettingsError(
                f"memory_size is {self.memory_size} and localisation_memory_size {self.localisation_memory_size}; "
                f"they must be at least {smallest} and 6 to hold more than the first frame's samples"
            )
        if self.train_interval < 1:
            raise SettingsError(f"train_interval is {self.train_interval}; it must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrackerConfig:
        return _from_dict(cls, values)


RTS50 = ModelConfig()
"""The paper's network: Mask R-CNN's ResNet-50, crops of 480×832."""

RTS_MINI = ModelConfig(
    name="rts-mini",
    backbone="mobilenetv2",
    feature_layers=("layer3", "layer4"),
    neck_dim=128,
    feature_dim=64,
    # With the previous mask 16 channels enter the decoder, which keeps its widths multiples of 16.
    num_filters=15,
    decoder_dims=(64, 48, 32, 16),
    upsampling="bilinear",
    previous_mask=True,
)
"""A small network for CPUs: MobileNetV2, crops of 240×416."""


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What the process that decodes a worker's videos may take."""

    ring_frames: int = 8
    """Frames that may wait for the tracker; fewer where they would take more than `ring_bytes`, but at least 2."""
    ring_bytes: int = 128 << 20
    memory: int = 2 << 30
    """Bytes beyond what the process needs to start; a video that needs more is given up."""
    silence: float = 120.0
    """Seconds without any progress after which the process counts as hung."""
    decode_memory: int = 256 << 20
    """`auto` gives decord, which decodes ahead without limit, only what fits here as RGB; forced, it reads bursts."""
    restarts: int = 3
    """How often, for each video, a process that was killed from outside is replaced."""


@dataclass(frozen=True, kw_only=True)
class SpoolLimits:
    """Which videos of a store a worker copies to its disk; PyAV reads the others by ranges while they are decoded."""

    largest: int = 2 << 30
    """Bytes."""
    quota: int | None = None
    """Bytes of disk for a worker's `videos`, those in hand and the next; None leaves the disk itself as the limit."""
    videos: int = 2

    @property
    def most_of_one(self) -> int | None:
        """Bytes of the quota that one video may take, so that none has to know of the others."""
        return None if self.quota is None else self.quota // self.videos


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How one submission runs. Only `weights`, `profile`, `tracker` and `tracker_options` decide the masks."""

    weights: str | None = None
    """Name, path or URI; None takes the weights that the package ships."""
    tracker_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrackerConfig` to be set otherwise than the weights' own configuration says."""
    tracker: str = "rts_batch.worker.rts:RtsFactory"
    """Import path of the tracker; another one is for tests."""
    device: DeviceName = "auto"
    profile: Profile = "exact"
    """Precision: float32; TensorFloat-32 products (CUDA only); or bfloat16 but for the learners and their features."""
    decoder: DecoderName = "auto"
    spool_quota: float | None = None
    """GiB of disk for the videos that a worker copies from a store; see `SpoolLimits`."""
    strict_video: bool = False
    """A video with damage fails; otherwise the damage is counted in its report."""
    workers: int | None = None
    """Worker processes at most; None takes one per GPU share, or one per four cores."""
    min_workers: int = 1
    """Workers that are kept as long as any video waits."""
    threads_per_worker: int | None = None
    """CPU threads of each worker; None takes the run's own number, or cores // workers in a new run."""
    lanes: int | None = None
    """Videos that each worker tracks at the same time; None takes the run's own number, or 1 in a new run."""
    gpus_per_worker: float = 1.0
    cpus_per_worker: float = 1.0
    """What Ray sets aside for each worker; it does not limit its threads."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of the cluster that each worker takes."""
    stall_timeout: float = 600.0
    """Seconds without a further frame after which a video counts as hung."""
    checkpoint_every: float = 300.0
    """Seconds of work on one video between two checkpoints of it; 0 writes none."""
    address: str = "local"
    """`local` starts a Ray of its own on this machine; anything else is the address of a running cluster."""

    def __post_init__(self) -> None:
        for name in ("workers", "min_workers", "threads_per_worker", "lanes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name.replace('_', ' ')} is {value}; it must be at least 1")
        for name, amount in {"CPUs": self.cpus_per_worker, **self.resources}.items():
            if amount <= 0 or (amount > 1 and amount % 1):
                raise SettingsError(f"{name} per worker is {amount:g}; expected a share of one, or a whole number")
        if self.workers is not None and self.min_workers > self.workers:
            raise SettingsError(f"min workers is {self.min_workers}, more than the {self.workers} workers at most")
        if self.checkpoint_every < 0:
            raise SettingsError(f"checkpoint every {self.checkpoint_every:g} s; give 0 for none, or seconds")
        if self.spool_quota is not None and self.spool_quota < 0:
            raise SettingsError(f"spool quota is {self.spool_quota:g} GiB; give 0 to copy no video to disk, or more")
        if self.stall_timeout < 1:
            raise SettingsError(f"stall timeout is {self.stall_timeout:g} s; give at least 1, more than a frame takes")
        if not 0 < self.gpus_per_worker <= 16 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise SettingsError(f"GPUs per worker is {self.gpus_per_worker:g}; give a share of one, or a whole number")

    def spool_limits(self, lanes: int) -> SpoolLimits:
        return SpoolLimits(quota=None if self.spool_quota is None else int(self.spool_quota * 2**30), videos=lanes + 1)

    def tracker_config(self, default: TrackerConfig) -> TrackerConfig:
        """The weights' own tracker configuration with this run's options put in."""
        return dataclasses.replace(default, **self.tracker_options)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """Takes what `to_dict` gave; what another version wrote beside it is left out."""
        return cls(**{name: values[name] for name in (item.name for item in dataclasses.fields(cls)) if name in values})


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
    max_failures: int | None = None
    """Hand out nothing more once so many videos have been given up."""


TRACKER_RTS50 = TrackerConfig()
TRACKER_RTS_MINI = TrackerConfig(
    crop_size=(240, 416),
    search_area_scale=3.0,
    moment_threshold=0.5,
    learning_rate=0.05,
    init_samples_minimum_weight=0.6,
    init_iterations=60,
    update_iterations=2,
    initial_warps=((0.7, False), (1.45, False), (1.0, True), (2.0, True)),
    sta_search_area_scale=2.5,
    sta_normalise=True,
)

STA_MINI = StaConfig(
    backbone="mobilenetv2",
    feature_layers=("layer3", "layer4"),
    neck_dim=128,
    feature_dim=64,
    num_filters=8,
    label_encoder_dims=(16, 32, 64, 64),
    decoder_dims=(64, 48, 32, 16),
    upsampling="bilinear",
)
"""The box head that goes with `rts-mini`."""

MODELS: dict[str, tuple[ModelConfig, TrackerConfig]] = {
    "rts50": (RTS50, TRACKER_RTS50),
    "rts-mini": (RTS_MINI, TRACKER_RTS_MINI),
}


def _from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(f"{cls.__name__} has no setting {unknown[0]!r}; valid are {', '.join(sorted(known))}")
    arguments: dict[str, Any] = {key: _as_tuple(value) for key, value in values.items()}
    return cls(**arguments)


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only; settings hold tuples."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
