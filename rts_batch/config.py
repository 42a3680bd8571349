"""What decides a mask, as frozen objects with every default.

`ModelConfig` and `StaConfig` fix the shapes of the networks, `TrackerConfig` the procedure that runs them. They are
recorded in a run's folder, which takes no others. How a run is done is in `rts_batch.runs.settings`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rts_batch.errors import SettingsError

BackboneName = Literal["resnet50", "mobilenetv2"]
LayerName = Literal["layer1", "layer2", "layer3", "layer4"]
Profile = Literal["exact", "tf32", "bf16"]
ProfileChoice = Literal["auto", "exact", "tf32", "bf16"]
Rules = Literal["code", "paper"]
Overlap = Literal["merge", "allow"]
"""Whether each pixel of a frame belongs to one target at most, or each target is tracked as if it were alone."""
Upsampling = Literal["bicubic", "bilinear"]

GOOD_IOU = 0.7
"""IoU with the truth from which a mask counts as good."""
GOOD_LEFT_OUT = 0.02
"""Share of the good masks that the threshold of a `QualityMap` may call uncertain."""

_Self = TypeVar("_Self", bound="_Config")


@dataclass(frozen=True, kw_only=True)
class _Config:
    """Settings that JSON can hold."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[_Self], values: dict[str, Any]) -> _Self:
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SettingsError(f"{cls.__name__} has no setting {unknown[0]!r}; valid are {', '.join(sorted(known))}")
        return cls(**{key: _as_tuple(value) for key, value in values.items()})


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
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


@dataclass(frozen=True, kw_only=True)
class StaConfig(_Config):
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


@dataclass(frozen=True, kw_only=True)
class TrackerConfig(_Config):
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
    """… and after that on every frame that is so many after the last."""

    # Box initialisation
    sta_search_area_scale: float = 4.0
    sta_normalise: bool = False
    """False feeds STA the raw RGB crop as the released tracker does; true normalises it as STA was trained."""
    box_refinements: int = 0
    """How many times a box's mask is drawn anew by tracking it into its own frame. The released tracker has none."""

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


@dataclass(frozen=True, kw_only=True)
class QualityMap(_Config):
    """From what is measured of a tracked mask to its expected IoU with the truth (`tracking/quality.py`).

    That is the chance that the mask lies on its target at all, times the IoU that it then has. Both are read off one
    hidden layer of tanh units, of M inputs and K units. A map belongs to the weights whose masks it was fitted on.
    """

    origin: str
    """What it was fitted on, in words."""
    threshold: float
    """A mask of a lower expected IoU is called `uncertain`."""
    inputs: tuple[str, ...]
    """The measures that it reads (of `tracking.quality.INPUTS`), M of them."""
    lowest: tuple[float, ...]
    """Of each measure where it was fitted, M; lower ones are taken for it."""
    highest: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    hidden: tuple[tuple[float, ...], ...]
    """K × M."""
    hidden_bias: tuple[float, ...]
    output: tuple[float, ...]
    """Of the logit of the IoU of a mask on its target, K."""
    output_bias: float
    on_target: tuple[float, ...] = ()
    """Of the logit of the chance to be on the target, K; none where `output` counts that in, as in earlier versions."""
    on_target_bias: float = 0.0
    lost_below: float = 0.0
    """A mask whose chance to be on its target is lower is called `lost`; 0 calls none so, as earlier versions."""
    stretch: float = 1.0
    """Of the estimate's logit, on footage that the map was calibrated for."""
    shift: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Leave out what an earlier version does not know and this map does not use: it has the same fingerprint."""
        later = {"on_target": (), "on_target_bias": 0.0, "lost_below": 0.0, "stretch": 1.0, "shift": 0.0}
        return {key: value for key, value in super().to_dict().items() if key not in later or value != later[key]}

    def __post_init__(self) -> None:
        count, units = len(self.inputs), len(self.output)
        vectors = (self.lowest, self.highest, self.means, self.scales, *self.hidden)
        per_unit = {len(self.hidden), len(self.hidden_bias), len(self.on_target) or units}
        if {len(vector) for vector in vectors} != {count} or per_unit != {units}:
            raise SettingsError(f"the quality map's parts do not fit together: {count} inputs, {units} hidden units")
        if not (0 <= self.threshold <= 1 and 0 <= self.lost_below <= 1) or min(self.scales) <= 0:
            raise SettingsError("the quality map's thresholds must lie between 0 and 1 and its scales above 0")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything in it, 64 hex digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


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
"""A small network for CPUs: MobileNetV2, crops of 320×560."""


TRACKER_RTS50 = TrackerConfig()
TRACKER_RTS_MINI = TrackerConfig(
    crop_size=(320, 560),
    search_area_scale=3.0,
    moment_threshold=0.5,
    learning_rate=0.05,
    init_samples_minimum_weight=0.6,
    init_iterations=60,
    update_iterations=2,
    initial_warps=((0.7, False), (1.45, False), (1.0, True), (2.0, True)),
    sta_search_area_scale=2.5,
    sta_normalise=True,
    box_refinements=1,
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


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only; settings hold tuples."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
