"""A training run from one TOML file: settings, data sets, initial weights.

::

    base = "paper"                        # the named configuration to start from

    [settings]                            # what differs from it
    batch = 8

    [initial]
    network = "lwl_stage2.pth"            # or backbone = "e2e_mask_rcnn_R_50_FPN_1x.pkl"

    [[data]]
    kind = "youtube-vos"
    root = "$DATA/youtube-vos/train"
    sequences = "jjtrain.txt"
    weight = 6

    [[validation]]
    kind = "youtube-vos"
    root = "$DATA/youtube-vos/train"
    sequences = "jjvalid.txt"

Relative paths belong to the file's own folder; `$NAME` is taken from the environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rts_batch.errors import SettingsError, TrainingError
from rts_batch.io.storage.files import whole_file
from rts_batch.masks import State
from rts_batch.training.checkpoints import check_settings, load_state, plain, state_files
from rts_batch.training.clips.batches import ClipMaker
from rts_batch.training.clips.datasets import RunMasks, davis, got10k, lasot, youtube_vos
from rts_batch.training.clips.datasets.runs import MaskFilter
from rts_batch.training.clips.sampling import MixedClips, VideoClips
from rts_batch.training.clips.stills.stills import read_index
from rts_batch.training.clips.stills.synthetic import StillClips
from rts_batch.training.entries import check_entry, table, tables
from rts_batch.training.mini.recipe import MINI, MINI_HEADS, MINI_STA
from rts_batch.training.settings import CONFIGURATIONS, ClipSettings, TrainSettings
from rts_batch.weights.publications import NAMES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ClipKind = Callable[..., ClipMaker]
"""Builds a clip maker from `ClipSettings` and the options of one `[[data]]` entry as keywords."""

BASES = {**CONFIGURATIONS, **{settings.name: settings for settings in (MINI_HEADS, MINI, MINI_STA)}}
PATH_OPTIONS = ("root", "masks", "sequences", "folder", "index", "backbone", "network")


@dataclass(frozen=True)
class Recipe:
    """What a TOML file says, with paths made absolute. Plain values only, so that it travels to other machines."""

    settings: TrainSettings
    data: tuple[Mapping[str, Any], ...] = ()
    """Options of each data set: `kind`, `weight` and what the kind takes."""
    validation: tuple[Mapping[str, Any], ...] = ()
    validation_batches: int = 100
    initial: Mapping[str, str] | None = None
    """`backbone` or `network`: a file of weights."""

    def clips(self) -> ClipMaker:
        """Open the data sets; raise `TrainingError` or `SettingsError`."""
        return open_clips(self.data, self.settings.clips)

    def validation_clips(self) -> ClipMaker | None:
        return open_clips(self.validation, self.settings.clips.for_validation()) if self.validation else None

    def claim(self, folder: Path) -> None:
        """Write the recipe into a run's folder, where nothing has been trained or what has been is this recipe's.

        Raises:
            TrainingError: it has another one's checkpoints, a file that cannot be read, or it cannot be written.
        """
        file = folder / "recipe.json"
        content = plain({"data": list(self.data), "initial": self.initial, "settings": self.settings.to_dict()})
        checkpoints = state_files(folder)
        if checkpoints:
            before = _read_claim(file)
            for name in ("data", "initial"):
                if before and before.get(name) != content[name]:
                    raise TrainingError(
                        f"{folder} belongs to a training with {name} = {json.dumps(before.get(name))}, not "
                        f"{json.dumps(content[name])}; use another folder"
                    )
            check_settings(load_state(checkpoints[-1]), self.settings, checkpoints[-1])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise TrainingError(f"{file}: cannot be written ({error.strerror}); use another folder") from error


def _read_claim(file: Path) -> dict[str, Any]:
    """Return what a run's `recipe.json` says, nothing where there is none; raise `TrainingError`."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{file}: cannot be read ({error}); remove it if the folder's checkpoints are this recipe's"
        ) from error
    return content if isinstance(content, dict) else {}


def read_recipe(source: str | Path) -> Recipe:
    """Read a TOML file, or take a named configuration (which has no data of its own).

    Raises:
        SettingsError: with the file, the setting and what is valid.
    """
    path = Path(source)
    if not path.exists():
        if str(source) in BASES:
            raise SettingsError(
                f"{source!r} is settings without data: write a file with base = {source!r} and [[data]]"
            )
        raise SettingsError(f"{source} does not exist; expected a TOML file")
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return _recipe(content, path.resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _recipe(content: dict[str, Any], folder: Path) -> Recipe:
    known = ("base", "settings", "initial", "data", "validation", "validation_batches")
    for name in content:
        if name not in known:
            raise SettingsError(f"there is no section {name!r}; valid are {', '.join(known)}")
    base = content.get("base", "paper")
    if not isinstance(base, str) or base not in BASES:
        raise SettingsError(f"base is {base!r}; valid are {', '.join(sorted(BASES))}")
    settings = TrainSettings.from_dict(table(content, "settings"), base=BASES[base])
    initial = table(content, "initial")
    for name, value in initial.items():
        if name not in ("backbone", "network") or not isinstance(value, str):
            raise SettingsError(f"initial has {name!r} = {value!r}; valid are backbone and network, each a file's name")
    batches = content.get("validation_batches", 100)
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise SettingsError(f"validation_batches is {batches!r}; expected a whole number above 0")
    entries = {section: tables(content, section) for section in ("data", "validation")}
    for section, found in entries.items():
        for number, entry in enumerate(found, 1):
            check_entry(entry, CLIP_KINDS, f"[[{section}]] number {number}")
    if not entries["data"]:
        raise SettingsError("there is no [[data]] to train on")
    return Recipe(
        settings,
        data=tuple(_resolved(entry, folder) for entry in entries["data"]),
        validation=tuple(_resolved(entry, folder) for entry in entries["validation"]),
        validation_batches=batches,
        initial=_resolved(initial, folder) or None,
    )


def _resolved(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths among some options absolute; URIs and the names of built-in weights stay."""
    return {
        name: _place(value, folder) if name in PATH_OPTIONS and isinstance(value, str) else value
        for name, value in options.items()
    }


def _place(value: str, folder: Path) -> str:
    # What a variable holds may itself be a URI, a name or an absolute path.
    place = os.path.expandvars(value)
    return place if "://" in place or place in NAMES else str(folder / place)


def open_clips(entries: tuple[Mapping[str, Any], ...], settings: ClipSettings) -> ClipMaker:
    """Open data sets side by side; raise `TrainingError` or `SettingsError`."""
    makers = []
    for entry in entries:
        options = {name: value for name, value in entry.items() if name not in ("kind", "weight")}
        makers.append(CLIP_KINDS[entry["kind"]](settings, **options))
    if len(makers) == 1:
        return makers[0]
    return MixedClips(makers, [float(entry.get("weight", 1)) for entry in entries])


def _youtube_vos_clips(
    clips: ClipSettings, *, root: str, sequences: str | None = None, exclude: list[str] | None = None
) -> ClipMaker:
    return VideoClips(youtube_vos(root, sequences=sequences, exclude=exclude or ()), clips)


def _davis_clips(
    clips: ClipSettings,
    *,
    root: str,
    sequences: str | None = None,
    exclude: list[str] | None = None,
    resolution: str = "480p",
) -> ClipMaker:
    return VideoClips(davis(root, sequences=sequences, exclude=exclude or (), resolution=resolution), clips)


def _got10k_clips(
    clips: ClipSettings,
    *,
    root: str,
    masks: str,
    sequences: str | None = None,
    exclude: list[str] | None = None,
    states: list[State] | None = None,
    minimum_score: float | None = None,
    minimum_confidence: float | None = None,
) -> ClipMaker:
    keep = _filter(states, minimum_score, minimum_confidence)
    return VideoClips(got10k(root, masks=masks, keep=keep, sequences=sequences, exclude=exclude or ()), clips)


def _lasot_clips(
    clips: ClipSettings,
    *,
    root: str,
    masks: str,
    sequences: str | None = None,
    exclude: list[str] | None = None,
    step: int = 5,
    limit: int = 1000,
    states: list[State] | None = None,
    minimum_score: float | None = None,
    minimum_confidence: float | None = None,
) -> ClipMaker:
    if min(step, limit) < 1:
        raise SettingsError(f"data of kind 'lasot' has step {step} and limit {limit}; both must be above 0")
    keep = _filter(states, minimum_score, minimum_confidence)
    data = lasot(root, masks=masks, keep=keep, sequences=sequences, exclude=exclude or (), step=step, limit=limit)
    return VideoClips(data, clips)


def _run_clips(
    clips: ClipSettings,
    *,
    folder: str,
    boxes: str = "mask",
    states: list[State] | None = None,
    minimum_score: float | None = None,
    minimum_confidence: float | None = None,
    minimum_quality: float | None = None,
) -> ClipMaker:
    if boxes not in ("mask", "prompt"):
        raise SettingsError(f"data of kind 'run' has boxes {boxes!r}; valid are 'mask' and 'prompt'")
    keep = replace(_filter(states, minimum_score, minimum_confidence), minimum_quality=minimum_quality)
    return VideoClips(RunMasks(folder, keep=keep, boxes="prompt" if boxes == "prompt" else "mask"), clips)


def _stills_clips(
    clips: ClipSettings, *, index: str, tiers: list[str] | None = None, split: str = "train"
) -> ClipMaker:
    if split not in ("train", "held-out"):
        raise SettingsError(f"data of kind 'stills' has split {split!r}; valid are 'train' and 'held-out'")
    if clips.train_frames != 1:
        raise SettingsError("data of kind 'stills' has one train frame a clip; set train_frames = 1")
    stills = read_index(index, tiers=tuple(tiers or ("clean",)), split="train" if split == "train" else "held-out")
    return StillClips(
        stills, crop_size=clips.crop_size, search_area_scale=clips.search_area_factor, frames=clips.frames
    )


def _filter(states: list[State] | None, score: float | None, confidence: float | None) -> MaskFilter:
    keep = MaskFilter(minimum_score=score, minimum_confidence=confidence)
    return keep if states is None else replace(keep, states=tuple(states))


CLIP_KINDS: dict[str, ClipKind] = {
    "youtube-vos": _youtube_vos_clips,
    "davis": _davis_clips,
    "got10k": _got10k_clips,
    "lasot": _lasot_clips,
    "run": _run_clips,
    "stills": _stills_clips,
}


def register_clips(kind: str, build: ClipKind) -> None:
    """Make a further kind of data known to recipes: `build(clips, *, …options)` returns a `ClipMaker`."""
    CLIP_KINDS[kind] = build
