"""What a training run is: one frozen object, its named configurations and its reading from TOML.

Every published number is here (spec rts-training §8–§10); the data sets of a run are in `recipes`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rts_batch.config import RTS50, ModelConfig, Rules, StaConfig
from rts_batch.errors import SettingsError

Localisation = Literal["fused", "beside", "off"]
Precision = Literal["float32", "tf32", "bf16"]
Schedule = Literal["steps", "cosine"]

RTS_RATES: dict[str, float] = {
    "feature_extractor.layer2": 4e-5,
    "feature_extractor.layer3": 4e-5,
    "feature_extractor.layer4": 4e-5,
    "target_model": 8e-5,
    "label_encoder": 8e-5,
    "decoder": 8e-5,
    "clf_encoder": 2e-4,
    "classifier": 2e-4,
}


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are cut out of videos (spec rts-training §1–§5). The defaults are RTS's."""

    train_frames: int = 1
    test_frames: int = 3
    maximum_gap: int = 100
    """Frames between the first frame of a clip and the last, of those the data set offers."""
    crop_size: tuple[int, int] = (480, 832)
    """(H, W) in pixels."""
    search_area_factor: float = 5.0
    centre_jitter: tuple[float, float] = (3.0, 3.0)
    """Width (x, y) of the uniform shift of a train frame's region, in side lengths of the target."""
    scale_jitter: float = 0.25
    """Deviation of the logarithm of a train frame's box sides."""
    test_centre_jitter: tuple[float, float] = (5.5, 4.5)
    test_scale_jitter: float = 0.5
    grey: float = 0.05
    """Probability that all train (test) frames lose their colours."""
    flip: float = 0.5
    """Probability that all train (test) frames are mirrored."""
    rotation: float = 15.0
    """Largest angle of each frame's random affine map, in degrees."""
    zoom: float = 0.2
    """Largest logarithm of its scale."""
    brightness: float = 0.2

    def __post_init__(self) -> None:
        if self.train_frames < 1 or self.test_frames < 0:
            raise SettingsError("clips: train_frames must be at least 1, test_frames at least 0")
        if min(self.crop_size) < 32 or any(size % 16 for size in self.crop_size):
            raise SettingsError(
                f"clips: crop_size is {self.crop_size}; both sides must be multiples of 16, at least 32"
            )
        if self.maximum_gap < 1 or self.search_area_factor <= 0:
            raise SettingsError("clips: maximum_gap and search_area_factor must be above 0")

    @property
    def frames(self) -> int:
        return self.train_frames + self.test_frames

    def for_validation(self) -> ClipSettings:
        """The same without random affine maps and brightness."""
        return dataclasses.replace(self, rotation=0.0, zoom=0.0, brightness=0.0)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A training run. The defaults are the paper's for `rts50`."""

    name: str = "paper"
    model: ModelConfig | StaConfig = RTS50
    objective: str = "rts"
    """Names the function that turns a batch into losses: `rts` (also LWL), `sta`, or one a recipe registers."""

    clips: ClipSettings = ClipSettings()

    # Forward pass
    rules: Rules = "code"
    """`code`: the released training; `paper`: τ refined between test frames and used (equations 3 to 5)."""
    localisation: Localisation = "fused"
    """`beside`: trained, but the decoder does not see its scores (Table 1); `off`: LWL."""
    iterations: int = 5
    """Steepest-descent steps of both learners on the train frames."""
    refinement_iterations: int = 2
    label_sigma_factor: float = 0.05
    """σ of the score maps' labels is this times √(h·w): a quarter of the target over a search area factor of 5."""

    # Losses
    segmentation_weight: float = 10.0
    localisation_weight: float = 100.0
    """Of every iterate κ⁰ … κⁿ. The paper's formula, with its 1/N_iter, is 100 / 5."""

    # Optimisation
    learning_rates: dict[str, float] = field(default_factory=lambda: dict(RTS_RATES))
    """Parameter-name prefix → initial learning rate; the longest prefix wins. No prefix or a rate of 0: frozen."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled (AdamW); 0 is plain ADAM."""
    schedule: Schedule = "steps"
    """`steps`: times `step_factor` after each of `step_epochs`; `cosine`: down to zero over all iterations."""
    step_epochs: tuple[int, ...] = (25, 115, 160)
    step_factor: float = 0.2
    warmup_iterations: int = 0
    clip_norm: float | None = None
    ema: float | None = None
    """Decay of a moving average of the trained parameters, which then is what gets evaluated and shipped."""
    precision: Precision = "float32"
    """`bf16`: backbone, feature branches and decoder in bfloat16, the learners and losses in float32."""

    # Length
    batch: int = 15
    """Sequences in one step, over all workers."""
    epochs: int = 200
    iterations_per_epoch: int = 1000
    seed: int = 0

    # Housekeeping
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    keep_checkpoints: int = 3
    evaluate_every: int = 5000
    """Iterations between evaluations; 0 for none."""
    log_every: int = 10
    """Iterations that one row of the curves averages."""
    best: str | None = None
    """Measure of the evaluation whose best value (a loss's lowest) names the weights that are kept as `best.pt`."""

    def __post_init__(self) -> None:
        def refuse(name: str, expected: str) -> None:
            raise SettingsError(f"training {self.name!r}: {name} is {getattr(self, name)!r}; expected {expected}")

        for name, choices in (
            ("rules", ("code", "paper")),
            ("localisation", ("fused", "beside", "off")),
            ("precision", ("float32", "tf32", "bf16")),
            ("schedule", ("steps", "cosine")),
        ):
            if getattr(self, name) not in choices:
                refuse(name, "one of " + ", ".join(choices))
        for name in ("iterations", "batch", "epochs", "iterations_per_epoch", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                refuse(name, "a whole number above 0")
        for name in ("refinement_iterations", "warmup_iterations", "evaluate_every", "keep_checkpoints"):
            if getattr(self, name) < 0:
                refuse(name, "a whole number, 0 or more")
        if not any(rate > 0 for rate in self.learning_rates.values()):
            refuse("learning_rates", "at least one rate above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            refuse("ema", "a decay between 0 and 1, or none")
        if self.clip_norm is not None and self.clip_norm <= 0:
            refuse("clip_norm", "a norm above 0, or none")

    @property
    def total_iterations(self) -> int:
        return self.epochs * self.iterations_per_epoch

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, base: TrainSettings | None = None) -> TrainSettings:
        """Return `base` (the paper's by default) with `values` over it; raise `SettingsError` on an unknown name.

        `model` may hold a part of the model's settings; a model of the other kind needs `kind = "sta"` or `"rts"`.
        """
        base = base or cls()
        changes = dict(values)
        if isinstance(changes.get("model"), dict):
            changes["model"] = _model_config(changes["model"], base.model)
        if isinstance(changes.get("clips"), dict):
            changes["clips"] = _changed(base.clips, changes["clips"], "clips")
        return _changed(base, changes, "training settings")


Settings = TypeVar("Settings", TrainSettings, ClipSettings, ModelConfig, StaConfig)


def _changed(base: Settings, changes: dict[str, Any], where: str) -> Settings:
    """Return `base` with `changes`, each checked against the type of its field."""
    types = get_type_hints(type(base))
    unknown = sorted(set(changes) - set(types))
    if unknown:
        raise SettingsError(f"{where} have no {unknown[0]!r}; valid are {', '.join(sorted(types))}")
    checked = {name: _checked(value, types[name], f"{where}: {name}") for name, value in changes.items()}
    return dataclasses.replace(base, **checked)


def _checked(value: Any, kind: Any, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise SettingsError(f"{where} is {value!r}: {error.errors(include_url=False)[0]['msg']}") from None


def _model_config(values: dict[str, Any], base: ModelConfig | StaConfig) -> ModelConfig | StaConfig:
    values = dict(values)
    kind = values.pop("kind", "sta" if isinstance(base, StaConfig) else "rts")
    if kind == "sta":
        return _changed(base if isinstance(base, StaConfig) else StaConfig(), values, "model settings")
    if kind == "rts":
        return _changed(base if isinstance(base, ModelConfig) else ModelConfig(), values, "model settings")
    raise SettingsError(f"model has kind {kind!r}; valid are 'rts' and 'sta'")


PAPER = TrainSettings(learning_rates=dict(RTS_RATES))

NO_CONDITIONING = dataclasses.replace(
    PAPER,
    name="no-conditioning",
    localisation="beside",
    learning_rates={key: rate for key, rate in RTS_RATES.items() if key != "clf_encoder"},
)

LWL_STAGE1 = dataclasses.replace(
    PAPER,
    name="lwl-stage1",
    localisation="off",
    segmentation_weight=100.0,
    learning_rates={
        "target_model.filter_optimizer": 1e-4,
        "target_model.feature_extractor": 2e-5,
        "decoder": 1e-4,
        "label_encoder": 2e-4,
    },
    batch=20,
    epochs=70,
    step_epochs=(40,),
)

LWL_STAGE2 = dataclasses.replace(
    LWL_STAGE1,
    name="lwl-stage2",
    learning_rates={
        "target_model.filter_optimizer": 2e-5,
        "target_model.feature_extractor": 2e-5,
        "decoder": 2e-5,
        "label_encoder": 2e-5,
        "feature_extractor.layer2": 2e-5,
        "feature_extractor.layer3": 2e-5,
        "feature_extractor.layer4": 2e-5,
    },
    epochs=80,
    step_epochs=(25, 75),
)

STA_TRAINING = dataclasses.replace(
    PAPER,
    name="sta",
    model=StaConfig(),
    objective="sta",
    segmentation_weight=100.0,
    learning_rates={
        "target_model.filter_optimizer": 1e-4,
        "target_model.feature_extractor": 2e-5,
        "target_model_segm.filter_optimizer": 1e-4,
        "decoder": 1e-4,
        "label_encoder": 2e-4,
        "bbox_encoder": 2e-4,
        "segm_encoder": 2e-4,
    },
    batch=4,
    epochs=80,
    step_epochs=(30, 60),
    clips=ClipSettings(train_frames=3, test_frames=0, rotation=0.0, zoom=0.0),
)

CONFIGURATIONS: dict[str, TrainSettings] = {
    settings.name: settings for settings in (PAPER, NO_CONDITIONING, LWL_STAGE1, LWL_STAGE2, STA_TRAINING)
}
