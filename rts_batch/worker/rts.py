"""The RTS tracker as a run uses it: described once in the driver, loaded once in every worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import torch

from rts_batch.config import Overlap, Profile, QualityMap, TrackerConfig
from rts_batch.errors import ClusterError, SettingsError, WeightsError
from rts_batch.io.storage import files, uris
from rts_batch.manifest import VideoTask
from rts_batch.model.fast import compiled
from rts_batch.model.fast.networks import multiplies_bfloat16
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.runs.settings import RunSettings
from rts_batch.tracking.opener import SceneOpener
from rts_batch.tracking.scene import Scene
from rts_batch.weights.inference import compile_ahead, laid_out_networks
from rts_batch.weights.publications import DEFAULT_WEIGHTS, NAMES
from rts_batch.weights.registry import Weights, default_quality, load_weights
from rts_batch.worker.tracker import TrackerDescription

PREFERRED_THREADS: Final = {"mobilenetv2": 1, "resnet50": 4}
"""CPU threads that a network of each backbone gains from (`benchmarks/workers.py`)."""

WORKER_BYTES: Final = {"mobilenetv2": 1 << 30, "resnet50": 5 << 29}
"""A worker's resident memory with room to spare."""

UNTRAINED = (
    "these weights are untrained: the run is real, its masks are meaningless; give trained weights with --weights"
)


class RtsFactory:
    """See `rts_batch.worker.tracker.TrackerFactory`."""

    @staticmethod
    def describe(settings: RunSettings) -> TrackerDescription:
        """Load the weights to see what they are.

        Raises:
            WeightsError: The weights cannot be used.
            ClusterError: The device is not there.
        """
        name = settings.weights or DEFAULT_WEIGHTS
        device = _choose_device(settings)
        profile = _choose_profile(settings, device)
        if profile == "tf32" and device == "cpu":
            raise SettingsError("--profile tf32: TensorFloat-32 exists on CUDA devices only; give exact or bf16")
        weights = _load(name)
        config = settings.tracker_config(weights.tracker_config)
        quality = weights.quality or default_quality()
        return TrackerDescription(
            # Workers have folders of their own.
            weights=str(Path(name).absolute()) if name not in NAMES and Path(name).exists() else name,
            fingerprint=weights.fingerprint,
            device=device,
            boxes=weights.sta is not None,
            profile=profile,
            threads=PREFERRED_THREADS[weights.config.backbone],
            worker_bytes=WORKER_BYTES[weights.config.backbone],
            overlap=settings.overlap,
            settings={"tracker": config.to_dict(), "model": weights.config.to_dict()},
            environment={**_environment(device), **_judged(quality)},
            quality=quality,
            warning=f"weights {name}: {UNTRAINED}" if _is_untrained(weights) else None,
        )

    @staticmethod
    def load(description: TrackerDescription, *, threads: int, lanes: int = 1) -> RtsTracker:
        """Build the model on the worker's device.

        Raises:
            WeightsError: This host's weights are not those that the run was started with.
        """
        return RtsFactory.read(description, threads=threads, lanes=lanes)()

    @staticmethod
    def read(description: TrackerDescription, *, threads: int, lanes: int = 1) -> Callable[[], RtsTracker]:
        """See `rts_batch.worker.tracker.ForkableFactory`. Raises as `load` does."""
        torch.set_num_threads(1)  # threads of the process that reads would be missing in its copies
        weights = _load(description.weights)
        if weights.fingerprint != description.fingerprint:
            raise WeightsError(
                f"{description.weights}: the file on this worker has fingerprint {weights.fingerprint[:12]}…, the run "
                f"was started with {description.fingerprint[:12]}…; put the same file on every node"
            )
        model, sta = laid_out_networks(
            weights, description.device, profile=description.profile, lanes=lanes, threads=threads
        )
        config = TrackerConfig.from_dict(dict(description.settings["tracker"]))

        def finish() -> RtsTracker:
            torch.set_num_threads(threads)
            compile_ahead(model, config.crop_size)
            return RtsTracker(
                model=model,
                sta=sta,
                config=config,
                lanes=lanes,
                overlap=description.overlap,
                quality=description.quality,
            )

        return finish


class RtsTracker:
    """One model, ready for one video after another, or for as many side by side as it has lanes."""

    def __init__(
        self,
        *,
        model: RTS,
        sta: STA | None,
        config: TrackerConfig,
        lanes: int = 1,
        overlap: Overlap = "merge",
        quality: QualityMap | None = None,
    ) -> None:
        self._opener = SceneOpener(model, config, sta=sta, lanes=lanes, overlap=overlap, quality=quality)

    def open(self, targets: int) -> Scene:
        """Return an empty scene for a video of so many targets."""
        return self._opener.open(targets)

    def open_scene(self, task: VideoTask, state: bytes | None = None) -> Scene:
        scene = self.open(len(task.targets))
        if state is not None:
            scene.restore(state)
        return scene


def _is_untrained(weights: Weights) -> bool:
    return weights.metadata["provenance"].startswith("random")


def _load(name: str) -> Weights:
    """Load weights by name or path, or from an object store."""
    path = uris.local_path(name)
    if path is not None:
        return load_weights(name if name in NAMES else path)  # as text ./rts50 would be the name
    with tempfile.TemporaryDirectory(prefix="rts-batch-weights-") as folder:
        return load_weights(str(files.fetch(name, folder)))


def _choose_device(settings: RunSettings) -> Literal["cpu", "cuda"]:
    if settings.device != "auto":
        if settings.device == "cuda" and settings.address == "local" and not torch.cuda.is_available():
            raise ClusterError("--device cuda: this PyTorch finds no CUDA device; give --device cpu, or see nvidia-smi")
        return settings.device
    if settings.address != "local":
        raise SettingsError("--device auto looks at this machine, not at the cluster; give --device cuda or cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _choose_profile(settings: RunSettings, device: str) -> Profile:
    """Resolve `auto`: bfloat16 where this machine's device multiplies it in hardware. A cluster's is unknown."""
    if settings.profile != "auto":
        return settings.profile
    return "bf16" if settings.address == "local" and multiplies_bfloat16(device) else "exact"


def _judged(quality: QualityMap | None) -> dict[str, str]:
    """By which map: it decides `quality` and what is called uncertain, and no mask."""
    return {} if quality is None else {"quality_map": quality.fingerprint}


def _environment(device: str) -> dict[str, str]:
    """What may change the last bits of a mask beside the versions and the number of threads."""
    if device == "cuda" and torch.cuda.is_available():
        return {"device": "cuda", "device_name": torch.cuda.get_device_name(0)}
    return {
        "device": device,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "engine": compiled.engine_name(),
    }
