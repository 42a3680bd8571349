"""Training on runs: the network follows its target through whole frames as a tracker does and learns from all it met.

The search regions come from the network's own masks by the tracker's rules, the previous mask is its own, and its own
masks join the sample memory. So what is trained is not the next frame only, but drift, recovery and absence: where the
target is not in the search region the mask has to be empty and the score map low. Masks that are fed back are cut off
from the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from rts_batch.config import TRACKER_RTS_MINI, TrackerConfig
from rts_batch.model.rts import RTS, Features
from rts_batch.tracking.first_frame import first_state
from rts_batch.tracking.localisation import localise
from rts_batch.tracking.motion import update_search_state
from rts_batch.tracking.region import SearchRegion, paste_scores, place_region, sample_image, sample_mask
from rts_batch.tracking.result import tight_box
from rts_batch.tracking.state import TrackerState
from rts_batch.training.clips.batches import ABSENT_BOX, Batch
from rts_batch.training.distributed import Workers
from rts_batch.training.forward import score_labels_in
from rts_batch.training.losses import localisation_loss, mask_jaccard, peak_accuracy
from rts_batch.training.mini.recipe import SCORES_HIDDEN, SMALL_REGION, mask_loss
from rts_batch.training.objectives import Loss
from rts_batch.training.settings import TrainSettings

SMALL_TRACKER = replace(TRACKER_RTS_MINI, crop_size=SMALL_REGION)
SMALL_SHARE = 0.25
"""Share of the steps on the tracker's own search regions that take small ones, so that users may do so too."""
OWN_SHARE = 0.4
"""Weight of the run's own samples together, beside the first frame's; a tracker's ends at 1 − 0.6."""
UPDATE_STEPS = 2
"""Steepest-descent steps after each frame, as the tracker takes."""
FORGOTTEN = 0.1
"""Share of the frames without a previous mask, as after a loss."""
PUT_BACK_AFTER = 2
"""Frames in a row whose search region misses a visible target, after which the search begins anew at the target."""
MISSED = 0.2
"""A search region with less than this share of the visible target misses it."""
ABSENT_SCORE, PRESENT_SCORE = 0.1, 0.6
"""Score maps should stay below the one without a target and rise above the other with one; the threshold is 0.3."""
PRESENCE_WEIGHT, LONG_PRESENCE_WEIGHT = 1.0, 2.0
SCALE_NOISE, PLACE_NOISE = 0.12, 0.05
"""Deviations of the first search region's size and place, in logarithms and in the target's size."""


@dataclass
class Follower:
    """One sequence's search: the tracker's own state and geometry, without its branches."""

    config: TrackerConfig
    state: TrackerState
    missed: int = 0

    @classmethod
    def start(cls, config: TrackerConfig, mask: Tensor, box: Tensor) -> Follower:
        """Begin at a true mask, `[H, W]`, whose box is x, y, w, h, a little off."""
        x, y, w, h = box.tolist()
        zoom = torch.exp(SCALE_NOISE * torch.randn(()))
        shift = PLACE_NOISE * torch.randn(2) * (w * h) ** 0.5
        state = first_state(config, mask, (x, y, w, h))
        state.position = state.position + shift
        state.target_scale = state.target_scale * zoom
        return cls(config, state)

    def region(self) -> SearchRegion:
        """Place the next search region."""
        size = torch.tensor(self.config.crop_size, dtype=torch.float32) * self.state.target_scale
        frame = self.state.probabilities.shape
        return place_region(self.state.position, size, (frame[0], frame[1]), self.config.crop_size)

    def see(self, logits: Tensor, scores: Tensor, region: SearchRegion) -> None:
        """Take a frame's mask logits `[h, w]` and score map `[h', w']` and decide where to look next."""
        state, size = self.state, self.state.probabilities.shape
        pasted, window = paste_scores(logits, region, (size[0], size[1]))
        found = localise(scores, region, state.clf_position, state.clf_target_size, self.config)
        state.probabilities = torch.sigmoid(pasted)
        tight = tight_box(pasted, window)
        state.lost_mask = tight is None or tight == (0, 0, 1, 1)
        state.mask_too_small = bool(state.probabilities.sum() <= self.config.min_mask_area)
        state.lost_localisation = found.flag == "not_found"
        state.region = region
        if found.flag != "not_found":
            state.clf_position = region.position + found.displacement
            state.clf_target_size = state.target_size
        update_search_state(state, state.probabilities, self.config)

    def check(self, shown: float, mask: Tensor, box: Tensor) -> None:
        """Begin the search anew at the truth where too many regions in a row `shown` too little of the target."""
        self.missed = self.missed + 1 if shown < MISSED else 0
        if self.missed >= PUT_BACK_AFTER and mask.sum() > 2 * self.config.min_mask_area:
            self.state = Follower.start(self.config, mask, box).state
            self.state.probabilities = torch.zeros_like(self.state.probabilities)
            self.state.lost_mask = True
            self.missed = 0


@dataclass(frozen=True)
class Run:
    """What the network said on the frames after the first, and what was true in its search regions."""

    logits: Tensor
    """`[N, S, h, w]`."""
    masks: Tensor
    """`[N, S, h, w]`, 0 or 1."""
    scores: list[Tensor]
    """Score maps under κ⁰ … κⁿ, each `[N, S, h', w']`."""
    labels: Tensor
    """`[N, S, h', w']`; zero where the target is not in the search region."""
    frame_jaccard: Tensor
    """Jaccard of the masks in the whole frame, `[N, S]`; two empty ones: 1."""


def run_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """Follow with small search regions; see `_objective`."""
    return _objective(model, batch, settings, SMALL_TRACKER)


def wide_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """Follow with the tracker's own search regions, and in training sometimes with small ones; see `_objective`."""
    return _objective(model, batch, settings, _any_size())


def long_objective(model: nn.Module, batch: Batch, settings: TrainSettings, workers: Workers) -> Loss:
    """Follow as in `wide_objective`; whether the target is there at all counts for more; see `_objective`."""
    return _objective(model, batch, settings, _any_size(), presence=LONG_PRESENCE_WEIGHT)


def _any_size() -> TrackerConfig:
    small = torch.is_grad_enabled() and float(torch.rand(())) < SMALL_SHARE
    return SMALL_TRACKER if small else TRACKER_RTS_MINI


def _objective(
    model: nn.Module, batch: Batch, settings: TrainSettings, config: TrackerConfig, *, presence: float = PRESENCE_WEIGHT
) -> Loss:
    """Lovász and cross-entropy of the masks, the paper's localisation loss, and `presence_loss`."""
    hide_scores = float(torch.rand(())) < SCORES_HIDDEN
    run = follow(cast(RTS, model), batch, settings, hide_scores=hide_scores, config=config)
    total, parts = mask_loss(run.logits, run.masks)
    localisation = localisation_loss(run.scores, run.labels)
    told = presence_loss(run.scores[-1], run.labels)
    present = run.labels.flatten(-2).amax(-1) > 0
    peaks = run.scores[-1].flatten(-2).amax(-1)
    threshold = TRACKER_RTS_MINI.not_found_threshold
    parts |= {
        "localisation": localisation,
        "presence": told,
        "jaccard": run.frame_jaccard.mean(),
        "crop_jaccard": mask_jaccard(run.logits, run.masks),
        "peak": peak_accuracy(run.scores[-1], run.labels),
        "found": ((peaks >= threshold) & present).sum() / present.sum().clamp(min=1),
        "rejected": ((peaks < threshold) & ~present).sum() / (~present).sum().clamp(min=1),
    }
    whole = settings.segmentation_weight * total + settings.localisation_weight * localisation
    return Loss(whole + presence * told, parts)


def presence_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how far the highest scores are on the wrong side, squared: the mean over `[N, S, h, w]`'s maps.

    The hinge loss is a mean over all cells, to which one high peak on a look-alike is next to nothing.
    """
    present = labels.flatten(-2).amax(-1) > 0
    low = (scores.flatten(-2).amax(-1) - ABSENT_SCORE).relu().square()
    inside = scores.masked_fill(labels < 0.25, -torch.inf).flatten(-2).amax(-1)
    high = (PRESENT_SCORE - torch.where(inside.isfinite(), inside, PRESENT_SCORE)).relu().square()
    return torch.where(present, high, low).mean()


def follow(
    model: RTS, batch: Batch, settings: TrainSettings, *, hide_scores: bool, config: TrackerConfig = TRACKER_RTS_MINI
) -> Run:
    """Follow every sequence of a batch of whole frames from its first one."""
    sequences, frames = batch.sequences, batch.images.shape[0]
    followers = [Follower.start(config, batch.masks[0, s], batch.boxes[0, s]) for s in range(sequences)]
    features, truth, boxes = look(model, batch, 0, [follower.region() for follower in followers])
    x_c = features.localisation[None]
    labels = score_labels_in(model, boxes, x_c, config.crop_size, sigma_factor=settings.label_sigma_factor)
    kappas = model.classifier.learn(
        model.classifier.filter_initializer(x_c, boxes), x_c, labels, iterations=settings.iterations
    )
    learned = Learned(model, features.segmentation[None], truth, iterations=settings.iterations)

    logits, masks, all_scores, all_labels, jaccards = [], [], [], [], []
    for frame in range(1, frames):
        previous = [follower.state.probabilities for follower in followers]
        regions = [follower.region() for follower in followers]
        features, truth, boxes = look(model, batch, frame, regions)
        x_s, x_c = features.segmentation[None], features.localisation[None]
        scores = [model.localise(x_c, kappa) for kappa in kappas]
        remembered = remember(previous, followers, regions)
        conditioning = None if hide_scores else scores[-1]
        drawn = model.segment(x_s, features.maps, learned.tau, conditioning, previous_mask=remembered)
        logits.append(drawn)
        masks.append(truth)
        all_scores.append(scores)
        all_labels.append(
            score_labels_in(model, boxes, x_c, config.crop_size, sigma_factor=settings.label_sigma_factor)
        )
        with torch.no_grad():
            probabilities = torch.sigmoid(drawn)
            for s, follower in enumerate(followers):
                follower.see(drawn[0, s], scores[-1][0, s], regions[s])
                true = batch.masks[frame, s] > 0
                jaccards.append(frame_jaccard(follower.state.probabilities > 0.5, true))
                follower.check(shown_share(true, regions[s]), batch.masks[frame, s], batch.boxes[frame, s])
        if frame + 1 < frames:
            learned.update(x_s, probabilities)
    return Run(
        torch.cat(logits),
        torch.cat(masks),
        [torch.cat(maps) for maps in zip(*all_scores, strict=True)],
        torch.cat(all_labels),
        torch.stack(jaccards).view(frames - 1, sequences),
    )


class Learned:
    """The target model τ of every sequence, and the samples it learns from.

    Args:
        features: x_s of the first frame, `[1, S, C, h, w]`.
        masks: its true masks, `[1, S, h, w]`.
        iterations: steepest-descent steps on them.
    """

    def __init__(self, model: RTS, features: Tensor, masks: Tensor, *, iterations: int) -> None:
        self._model = model
        self._features = features
        self._encodings, self._weights = model.label_encoder(masks)
        self.tau: Tensor = model.target_model.learn(features, self._encodings, self._weights, iterations=iterations)[-1]

    def update(self, features: Tensor, masks: Tensor) -> None:
        """Learn from a further frame, given as the first one was."""
        encodings, weights = self._model.label_encoder(masks)
        self._features = torch.cat([self._features, features])
        self._encodings = torch.cat([self._encodings, encodings])
        self._weights = torch.cat([self._weights, weights])
        shares = sample_weights(len(self._features), self._weights)
        self.tau = self._model.target_model.learn(
            self._features, self._encodings, self._weights * shares, iterations=UPDATE_STEPS, start=self.tau
        )[-1]


def frame_jaccard(found: Tensor, true: Tensor) -> Tensor:
    """Return the Jaccard of two masks, `[H, W] bool`; 1 where both are empty."""
    union = (found | true).sum()
    return (found & true).sum() / union if union else torch.ones((), device=found.device)


def look(model: RTS, batch: Batch, frame: int, regions: list[SearchRegion]) -> tuple[Features, Tensor, Tensor]:
    """Return the features, true masks `[1, S, h, w]` and their boxes `[1, S, 4]` of one frame's search regions."""
    crops = torch.cat([sample_image(batch.images[frame, s], region) for s, region in enumerate(regions)])
    truth = torch.stack([sample_mask(batch.masks[frame, s], region) for s, region in enumerate(regions)])
    boxes = torch.tensor([box_of(mask) for mask in truth], device=truth.device)
    return model.extract(crops), truth[None], boxes[None]


def box_of(mask: Tensor) -> tuple[float, float, float, float]:
    """Return the tight box x, y, w, h of a mask `[h, w]`, `ABSENT_BOX` where it is empty."""
    tight = tight_box(mask, (0, 0, mask.shape[0], mask.shape[1]))
    return ABSENT_BOX if tight is None else (float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3]))


def remember(previous: list[Tensor], followers: list[Follower], regions: list[SearchRegion]) -> Tensor:
    """Return the previous frame's masks in the search regions, `[1, S, h, w]`; sometimes, and once lost, nothing."""
    maps = []
    for values, follower, region in zip(previous, followers, regions, strict=True):
        forgotten = follower.state.lost_mask or float(torch.rand(())) < FORGOTTEN
        known = torch.zeros_like(values) if forgotten else values.clamp(0, 1)
        maps.append(sample_mask(known, region))
    return torch.stack(maps)[None]


def shown_share(mask: Tensor, region: SearchRegion) -> float:
    """Return the share of a mask, `[H, W] bool`, that lies in a search region; 1 where there is none."""
    total = int(mask.sum())
    if not total:
        return 1.0
    (top, left), (bottom, right) = region.top_left.tolist(), region.bottom_right.tolist()
    rows, columns = slice(max(0, int(top)), max(0, int(bottom))), slice(max(0, int(left)), max(0, int(right)))
    return int(mask[rows, columns].sum()) / total


def sample_weights(count: int, like: Tensor) -> Tensor:
    """Return the weights of the first frame's sample and of the run's own, `[count, 1, 1, 1, 1]`."""
    weights = like.new_full((count,), OWN_SHARE / max(1, count - 1))
    weights[0] = 1 - OWN_SHARE
    return weights.view(-1, 1, 1, 1, 1)
