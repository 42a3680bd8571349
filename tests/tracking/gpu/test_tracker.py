"""The tracker of CUDA devices: on the CPU against the fast one, on a GPU also for what only a GPU can show."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import types
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rts_batch.config import TrackerConfig
from rts_batch.errors import PromptError, SettingsError
from rts_batch.masks import Marking
from rts_batch.model.fast.networks import fast, set_precision
from rts_batch.model.rts import RTS
from rts_batch.tracking import region as crop
from rts_batch.tracking.fast import FastSegmentationBranch, FastTracker, fast_tracker
from rts_batch.tracking.gpu import region as device_crop
from rts_batch.tracking.gpu import steps
from rts_batch.tracking.gpu.network import BatchedNetwork
from rts_batch.tracking.gpu.result import Number, Reading
from rts_batch.tracking.gpu.steps import SlotSteps
from rts_batch.tracking.gpu.tracker import GpuTracker, steps_class, supports
from rts_batch.tracking.opener import SceneOpener
from rts_batch.tracking.scene import Scene
from rts_batch.weights.registry import build_model, load_weights
from tests.support.parity_data import iou, synthetic_frame
from tests.support.trackers import SMALL, as_on_a_gpu

pytestmark = pytest.mark.networks

FRAMES = [synthetic_frame(96, 128, index) for index in range(30)]
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(scope="module", params=["cpu", GPU])
def network(request: pytest.FixtureRequest) -> RTS:
    set_precision(request.param, "exact")
    return as_on_a_gpu(request.param)


def same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-3) -> bool:
    return bool((ours - theirs).norm() <= tolerance * theirs.norm())


# ---- the search region ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [(96, 128), (272, 640), (37, 51), (120, 500), (1080, 1920)])
@pytest.mark.parametrize("crop_size", [(96, 160), (240, 416)])
def test_the_search_region_is_the_plain_ones(image_size: tuple[int, int], crop_size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = device_crop.Grid(crop_size, image_size, torch.device("cpu"))
    image = torch.randint(0, 256, (*image_size, 3), dtype=torch.uint8, generator=generator)
    mask, logits = (torch.randn(size, generator=generator) for size in (image_size, crop_size))
    limits = torch.tensor(image_size, dtype=torch.float32)
    for scale in (0.05, 0.3, 0.7, 1.0, 1.4, 2.6, 6.0):
        position = (1.4 * torch.rand(2, generator=generator) - 0.2) * limits
        size = scale * torch.tensor(crop_size, dtype=torch.float32)
        region = crop.place_region(position, size, image_size, crop_size)
        placement = device_crop.place_region(position, size, grid)
        ours = device_crop.host_region(placement, crop_size)
        for name in ("top_left", "bottom_right", "rows", "columns", "rows_inside", "columns_inside"):
            assert torch.equal(getattr(ours, name), getattr(region, name)), name
        assert torch.equal(placement.scale(grid), region.scale)

        theirs = crop.sample_image(image.permute(2, 0, 1), region)[0]
        assert (device_crop.sample_image(image, placement, grid) - theirs).abs().max() < 0.02
        places, inside = device_crop.mask_places(placement, grid)
        assert torch.equal(places, device_crop.region_places(region, grid)[0])
        assert torch.equal(device_crop.sample_mask(mask, places, inside, grid), crop.sample_mask(mask, region))

        scores, window = device_crop.paste_scores(logits, placement, grid)
        expected, covered = crop.paste_scores(logits, region, image_size)
        assert tuple(window.int().tolist()) == covered
        assert (scores - expected).abs().max() < 1e-3


# ---- whole trackers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.35, 5.0], ids=["found", "sometimes", "never found"])
@pytest.mark.parametrize("fallback", [True, False])
def test_the_device_tracker_gives_the_fast_ones_frames(network: RTS, threshold: float, fallback: bool) -> None:
    config = replace(SMALL, not_found_threshold=threshold, localisation_fallback=fallback)
    theirs, ours = fast_tracker(network, config), GpuTracker(network, config)
    for tracker in (theirs, ours):
        tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for number, (frame, mask) in enumerate(FRAMES[1:], start=2):
        # Blank frames between lose the target.
        frame = np.full_like(frame, 90) if 8 <= number < 11 else frame
        if number == 15:
            expected, found = theirs.correct(frame, mask=mask), ours.correct(frame, mask=mask)
        else:
            expected, found = theirs.step(frame), ours.step(frame)
        assert found.state == expected.state, number
        assert iou(found.mask, expected.mask) >= 0.995, number
        assert found.region == expected.region
        assert found.area == found.mask.sum()
        assert np.allclose(found.box, expected.box, atol=1)
        if number != 15:
            assert found.score == pytest.approx(expected.score, abs=2e-3)
        if found.area:
            assert found.confidence == pytest.approx(expected.confidence, abs=2e-3)
        for branch in ("segmentation", "localisation"):
            mine, other = (getattr(tracker, branch) for tracker in (ours, theirs))
            assert ours.state.frame_number == theirs.state.frame_number == number
            assert (mine.memory.count, mine.memory.last_slot) == (other.memory.count, other.memory.last_slot), number
            assert torch.allclose(mine.memory.weights, other.memory.weights, atol=1e-5)
            assert torch.equal(mine.memory.age, other.memory.age)
            assert same(mine.filters, other.filters, 5e-3), (number, branch)
        assert ours.state.lost_frames == theirs.state.lost_frames
        assert np.allclose(ours.state.scale_history, theirs.state.scale_history, rtol=1e-4)


def test_a_device_tracker_that_was_saved_goes_on_bit_for_bit(network: RTS) -> None:
    lanes = BatchedNetwork(network, SMALL)
    scene = Scene(network, SMALL, single=True, tracker=lambda *args, **kw: GpuTracker(*args, network=lanes, **kw))
    scene.step(FRAMES[0][0], {1: Marking(mask=FRAMES[0][1])})
    for frame, _ in FRAMES[1:9]:
        scene.step(frame)
    snapshot = scene.snapshot()
    expected = [scene.step(frame)[1] for frame, _ in FRAMES[9:22]]
    masks = [(found.mask, found.score, found.confidence) for found in expected]
    fresh = Scene(network, SMALL, single=True, tracker=GpuTracker)
    fresh.restore(snapshot)
    for (frame, _), (mask, score, confidence) in zip(FRAMES[9:22], masks, strict=True):
        found = fresh.step(frame)[1]
        assert np.array_equal(found.mask, mask)
        assert (found.score, found.confidence) == (score, confidence)


def test_a_frame_read_late_is_the_frame_read_at_once(network: RTS) -> None:
    at_once, late = GpuTracker(network, SMALL), GpuTracker(network, SMALL)
    for tracker in (at_once, late):
        tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    pending = [late.step_late(frame) for frame, _ in FRAMES[1:12]]
    for coming, (frame, _) in zip(pending, FRAMES[1:12], strict=True):
        expected, found = at_once.step(frame), coming.read()
        assert found.score == expected.score
        assert np.array_equal(found.mask, expected.mask)
        assert found.box == expected.box


@pytest.mark.parametrize("lanes", [3, 2], ids=["a lane each", "one lane too few"])
def test_targets_of_one_video_are_one_batch(network: RTS, lanes: int) -> None:
    together = BatchedNetwork(network, SMALL, places=lanes)
    theirs = Scene(network, SMALL, single=False, tracker=fast_tracker)
    ours = Scene(network, SMALL, single=False, tracker=lambda *args, **kw: GpuTracker(*args, network=together, **kw))
    moved = np.roll(FRAMES[0][1], 30, axis=1)
    for number, (frame, mask) in enumerate(FRAMES[:10]):
        prompts = {1: Marking(mask=mask), 2: Marking(mask=moved & ~mask)} if number == 0 else {}
        if number == 4:
            prompts = {3: Marking(mask=np.roll(mask, 20, axis=0))}
        if number == 8:
            prompts = {2: Marking(mask=moved & ~mask)}
        expected, found = theirs.step(frame, prompts), ours.step(frame, prompts)
        assert expected.keys() == found.keys()
        for object_id in expected:
            # Rounding differs between a batch and one crop after the other, which moves the marks on nothing.
            if object_id == 1 or next(network.parameters()).device.type == "cpu":
                assert iou(expected[object_id].mask, found[object_id].mask) >= 0.99, (number, object_id)


@pytest.mark.parametrize("lanes", [3, 2], ids=["a lane each", "one lane too few"])
def test_targets_that_may_overlap_are_one_batch(network: RTS, lanes: int) -> None:
    together = BatchedNetwork(network, SMALL, places=lanes)

    def tracker(*args: Any, **options: Any) -> GpuTracker:
        return GpuTracker(*args, network=together, **options)

    ours = Scene(network, SMALL, single=False, overlap="allow", tracker=tracker)
    mask = FRAMES[0][1]
    prompts = {1: mask, 2: np.roll(mask, 4, axis=1), 3: np.roll(mask, 30, axis=1)}
    alone = {key: GpuTracker(network, SMALL) for key in prompts}
    for number, (frame, _) in enumerate(FRAMES[:8]):
        marked = {key: Marking(mask=mask) for key, mask in prompts.items()} if number in (0, 5) else {}
        found = ours.step(frame, marked)
        for key, theirs in alone.items():
            take = theirs.start if number == 0 else theirs.correct
            expected = take(frame, mask=prompts[key]) if marked else theirs.step(frame)
            assert iou(expected.mask, found[key].mask) >= 0.99, (number, key)
            assert found[key].state == expected.state


def moved(index: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    frame, mask = FRAMES[index]
    return np.roll(frame, shift, axis=1), np.roll(mask, shift, axis=1)


def test_a_lanes_result_does_not_depend_on_the_others(network: RTS) -> None:
    def start(tracker: GpuTracker, shift: int) -> np.ndarray:
        frame, mask = moved(0, shift)
        return tracker.start(frame, mask=mask).mask

    def track(lanes: BatchedNetwork, shift: int, frames: int, results: dict[int, list[np.ndarray]]) -> None:
        tracker = GpuTracker(network, SMALL, network=lanes)
        results[shift] = [start(tracker, shift)]
        results[shift] += [tracker.step(moved(index, shift)[0]).mask for index in range(1, frames)]

    lanes = BatchedNetwork(network, SMALL, places=3)
    lengths = {0: 8, 15: 4, 40: 6, 70: 8, 90: 4}
    alone: dict[int, list[np.ndarray]] = {}
    for shift, frames in lengths.items():
        track(lanes, shift, frames, alone)
    beside: dict[int, list[np.ndarray]] = {}
    waiting = list(lengths)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                shift = waiting.pop(0)
            track(lanes, shift, lengths[shift], beside)
            gc.collect()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for shift in lengths:
        for number, (ours, theirs) in enumerate(zip(beside[shift], alone[shift], strict=True)):
            assert np.array_equal(ours, theirs), (shift, number)


def test_a_network_that_fails_for_one_thread_runs_for_the_others(network: RTS, monkeypatch) -> None:
    lanes, alone = BatchedNetwork(network, SMALL, places=2), GpuTracker(network, SMALL)
    trackers = [GpuTracker(network, SMALL, network=lanes) for _ in range(2)]
    for tracker, shift in zip((*trackers, alone), (0, 40, 40), strict=True):
        frame, mask = moved(0, shift)
        tracker.start(frame, mask=mask)
        tracker.step(moved(1, shift)[0])
    whole, failures = lanes.stage, [RuntimeError("out of memory")]

    def fails_once() -> None:
        if failures:
            raise failures.pop()
        whole()

    monkeypatch.setattr(lanes, "stage", fails_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        trackers[0].step(moved(2, 0)[0])
    assert np.array_equal(trackers[1].step(moved(2, 40)[0]).mask, alone.step(moved(2, 40)[0]).mask)


def test_a_slot_that_found_no_room_for_a_size_is_fit_for_the_next_target(network: RTS, monkeypatch) -> None:
    """Half of its tensors were of the new size, which the next target of that size was given as they were."""
    batch = BatchedNetwork(network, SMALL)

    def started(shape: tuple[int, int], lanes: BatchedNetwork | None = batch) -> GpuTracker:
        tracker = GpuTracker(network, SMALL, network=lanes)
        frame, mask = synthetic_frame(*shape, 0)
        tracker.start(frame, mask=mask)
        return tracker

    def lacks_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    other = (64, 100)
    tracker = started((96, 128))
    tracker.step(FRAMES[1][0])
    slot = tracker._slot
    tracker.close()
    tracker = started(other)
    with monkeypatch.context() as broken:
        broken.setattr("rts_batch.tracking.gpu.steps.DeviceState.resize", lacks_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            tracker.step(synthetic_frame(*other, 1)[0])
    tracker.close()
    ours, theirs = started(other), started(other, None)
    frame = synthetic_frame(*other, 1)[0]
    assert np.array_equal(ours.step(frame).mask, theirs.step(frame).mask)
    assert ours._slot is slot


def test_more_trackers_than_lanes_take_turns(network: RTS) -> None:
    lanes = BatchedNetwork(network, SMALL)
    first, second = (GpuTracker(network, SMALL, network=lanes) for _ in range(2))
    alone = [GpuTracker(network, SMALL) for _ in range(2)]
    for tracker, shift in zip((first, second, *alone), (0, 40, 0, 40), strict=True):
        frame, mask = moved(0, shift)
        tracker.start(frame, mask=mask)
    for index in range(1, 8):
        for tracker, expected, shift in ((first, alone[0], 0), (second, alone[1], 40)):
            frame = moved(index, shift)[0]
            assert np.array_equal(tracker.step(frame).mask, expected.step(frame).mask), index


def test_a_frame_of_another_size_is_refused(network: RTS) -> None:
    tracker = GpuTracker(network, SMALL)
    tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for _ in range(2):
        with pytest.raises(PromptError, match="the frame is 100×90, the first was 128×96"):
            tracker.step(np.zeros((90, 100, 3), np.uint8))
        tracker.step(FRAMES[1][0])


def test_settings_that_need_the_host_are_refused(network: RTS) -> None:
    assert supports(TrackerConfig())
    for config in (replace(SMALL, rules="paper"), replace(SMALL, distractor_threshold=0.8)):
        assert not supports(config)
        with pytest.raises(SettingsError, match="fast_tracker"):
            GpuTracker(network, config)


def test_the_opener_takes_the_tracker_that_fits_the_device(network: RTS) -> None:
    on_cuda = next(network.parameters()).is_cuda
    scene = SceneOpener(network, SMALL, lanes=2).open(1)
    scene.step(FRAMES[0][0], {1: Marking(mask=FRAMES[0][1])})
    assert isinstance(scene.trackers[1], GpuTracker) is on_cuda
    several = SceneOpener(network, replace(SMALL, rules="paper")).open(2)  # needs the host
    several.step(FRAMES[0][0], {1: Marking(mask=FRAMES[0][1])})
    assert type(several.trackers[1]) is FastTracker
    assert isinstance(several.trackers[1].segmentation, FastSegmentationBranch)


@pytest.mark.parametrize(("lanes", "places"), [(1, [1, 2, 4, 8, 8]), (3, [4, 4, 4, 8, 8]), (16, [8] * 5)])
def test_a_batchs_places_depend_on_lanes_and_targets_alone(
    network: RTS, lanes: int, places: list[int], monkeypatch
) -> None:
    opener = SceneOpener(network, SMALL, lanes=lanes)
    made = []

    class Counted:
        def __init__(self, model: RTS, config: TrackerConfig, *, places: int, engine: Any) -> None:
            made.append(places)
            self.places, self.device = places, torch.device("cpu")

        def be_ready_for(self, *kinds: Any) -> None:
            pass

    monkeypatch.setattr("rts_batch.tracking.opener.BatchedNetwork", Counted)
    monkeypatch.setattr(opener, "_networks", {})
    for _ in range(2):
        assert [opener._network(targets).places for targets in (1, 2, 3, 5, 20)] == places
    assert made == sorted(set(places))


def test_the_fast_tracker_goes_on_from_what_a_gpu_left(network: RTS) -> None:
    """A GPU's tracker keeps no score maps; those of the first frame are of no use to a learner."""
    device, reference = GpuTracker(network, SMALL), fast_tracker(network, SMALL)
    for tracker in (device, reference):
        tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
        for frame, _ in FRAMES[1:8]:
            tracker.step(frame)
    resumed = fast_tracker(network, SMALL)
    resumed.restore(device.snapshot())
    for frame, _ in FRAMES[8:14]:
        found, expected = resumed.step(frame), reference.step(frame)
        assert iou(found.mask, expected.mask) >= 0.995
        assert same(resumed.segmentation.filters, reference.segmentation.filters, 5e-3)


def test_the_learners_are_told_how_many_samples_there_are(network: RTS, monkeypatch) -> None:
    if next(network.parameters()).is_cuda:
        pytest.skip("a host that asks breaks a capture")
    told: dict[str, list[tuple[int, int]]] = {"tau": [], "kappa": []}
    fit, instance_fit = steps.fit, steps.instance.fit

    def tau(filters: torch.Tensor, samples: Any, **options: Any) -> Any:
        told["tau"].append((int(samples.filled), int(samples.weights.flatten(1).any(1).sum())))
        return fit(filters, samples, **options)

    def kappa(*given: Any, filled: torch.Tensor, **options: Any) -> Any:
        told["kappa"].append((int(filled), int(given[-1].count_nonzero())))
        return instance_fit(*given, filled=filled, **options)

    monkeypatch.setattr(steps, "fit", tau)
    monkeypatch.setattr(steps.instance, "fit", kappa)
    tracker = GpuTracker(network, replace(SMALL, not_found_threshold=0.0))
    tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for frame, _ in FRAMES[1:6]:
        tracker.step(frame)
    for found in told.values():
        assert len(found) >= 3
        assert all(filled == weighted for filled, weighted in found)
        assert found[-1][0] > found[0][0]


def test_a_frame_that_was_read_holds_nothing_of_the_device(network: RTS) -> None:
    tracker = GpuTracker(network, SMALL)
    tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    coming = tracker.step_late(FRAMES[1][0])
    frame = pickle.loads(pickle.dumps(replace(coming.read(), score=0.5)))
    assert frame.score == 0.5
    assert coming.read() is coming.read()
    scores = weakref.ref(tracker._steps)
    tracker._slot.steps = None
    del tracker
    gc.collect()
    assert scores() is None


def test_every_pixel_of_a_very_large_mask_is_counted() -> None:
    """float32 has no odd numbers above 2²⁴, and `verify` found another area than the row's."""
    mask = torch.ones(4097, 4097, dtype=torch.bool)
    numbers = torch.zeros(Number.LENGTH)
    numbers[Number.AREA] = mask.sum().float()
    frame = Reading(numbers, mask, torch.zeros(1), torch.zeros(1, 1), fallback=True).frame()
    assert frame.area == 4097 * 4097


@pytest.mark.parametrize("trouble", [RuntimeError("Failed to find C compiler"), None])
def test_kernels_are_chosen_where_one_can_be_launched(trouble: Exception | None, monkeypatch, caplog) -> None:
    def try_launch(device: torch.device) -> None:
        if trouble is not None:
            raise trouble

    kernels = types.ModuleType("steps")
    kernels.try_launch, kernels.KernelSteps = try_launch, type("KernelSteps", (SlotSteps,), {})
    monkeypatch.setitem(sys.modules, "rts_batch.tracking.gpu.kernels.steps", kernels)
    steps_class.cache_clear()
    try:
        chosen = steps_class(torch.device("cuda"))
    finally:
        steps_class.cache_clear()
    assert chosen is (SlotSteps if trouble else kernels.KernelSteps)
    assert ("C compiler" in caplog.text) is (trouble is not None)


@pytest.mark.parametrize("trouble", [RuntimeError("PassManager::run failed"), torch.OutOfMemoryError("full"), None])
def test_a_network_whose_kernels_cannot_all_be_built_does_without(
    network: RTS, trouble: Exception | None, monkeypatch, caplog
) -> None:
    class Kernels(SlotSteps):
        @staticmethod
        def rounds(network: BatchedNetwork) -> Any:
            if trouble is not None:
                raise trouble
            return SlotSteps.rounds(network)

    monkeypatch.setattr("rts_batch.tracking.gpu.tracker.steps_class", lambda device: Kernels)
    batch = BatchedNetwork(network, SMALL)
    if isinstance(trouble, torch.OutOfMemoryError):
        with pytest.raises(torch.OutOfMemoryError):
            GpuTracker(network, SMALL, network=batch)
        return
    for _ in range(2):
        tracker = GpuTracker(network, SMALL, network=batch)
        tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
        tracker.step(FRAMES[1][0])
        assert type(tracker._steps) is (SlotSteps if trouble else Kernels)
    assert ("PassManager" in caplog.text) is (trouble is not None)


# ---- on a GPU only -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_gpu() -> RTS:
    set_precision("cuda", "exact")
    return as_on_a_gpu("cuda")


@pytest.mark.gpu
def test_a_step_never_waits_for_the_device(on_gpu: RTS) -> None:
    tracker = GpuTracker(on_gpu, SMALL)
    tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for frame, _ in FRAMES[1:6]:
        tracker.step(frame)  # captures every stage
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = [tracker.step_late(frame) for frame, _ in FRAMES[6:12]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(found.read().mask.shape == (96, 128) for found in pending)


@pytest.mark.gpu
def test_memory_on_the_device_does_not_grow_with_the_video(on_gpu: RTS) -> None:
    tracker = GpuTracker(on_gpu, SMALL)
    tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for index in range(30):
        _ = tracker.step(FRAMES[index % len(FRAMES)][0]).mask
    before = torch.cuda.memory_allocated()
    for index in range(300):
        _ = tracker.step(FRAMES[index % len(FRAMES)][0]).mask
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.gpu
@pytest.mark.parametrize("profile", ["tf32", "bf16"])
def test_profiles_stay_close_on_a_gpu(profile) -> None:
    plain = build_model(load_weights("rts-mini"), "cuda")
    set_precision("cuda", "exact")
    exact = GpuTracker(fast(plain), SMALL)
    exact.start(FRAMES[0][0], mask=FRAMES[0][1])
    set_precision("cuda", profile)
    rounded = GpuTracker(fast(plain, profile=profile), SMALL)
    overlaps = []
    for frame, _ in FRAMES[1:8]:
        rounded.restore(exact.snapshot())
        set_precision("cuda", profile)
        found = rounded.step(frame).mask
        set_precision("cuda", "exact")
        overlaps.append(iou(exact.step(frame).mask, found))
    assert np.mean(overlaps) >= 0.98


@pytest.mark.gpu
@pytest.mark.parametrize("threshold", [0.0, 0.35, 5.0], ids=["found", "sometimes", "never found"])
def test_kernels_do_what_the_tensor_operations_do(on_gpu: RTS, threshold: float, monkeypatch) -> None:
    pytest.importorskip("triton")
    config = replace(SMALL, not_found_threshold=threshold)
    with monkeypatch.context() as patch:
        patch.setattr("rts_batch.tracking.gpu.tracker.steps_class", lambda device: SlotSteps)
        tensors = GpuTracker(on_gpu, config)
    kernels = GpuTracker(on_gpu, config)
    for tracker in (tensors, kernels):
        tracker.start(FRAMES[0][0], mask=FRAMES[0][1])
    for number, (frame, _) in enumerate(FRAMES[1:], start=2):
        frame = np.full_like(frame, 90) if 8 <= number < 11 else frame
        expected = tensors.step(frame)
        found = kernels.step(frame)
        assert type(kernels._steps) is not type(tensors._steps)
        assert found.state == expected.state, number
        assert iou(found.mask, expected.mask) >= 0.999, number
        assert found.region == expected.region
        assert np.allclose(found.box, expected.box, atol=1e-3)
        ours, theirs = kernels._steps, tensors._steps
        crops, previous_masks = kernels.network.inputs[:2]
        assert torch.allclose(crops[ours.place], theirs.crop, atol=1e-2), number
        assert torch.allclose(previous_masks[ours.place], theirs.previous_mask, atol=1e-3), number
        assert torch.allclose(ours.state.values, theirs.state.values, rtol=1e-4, atol=1e-3), number
        assert torch.equal(ours.state.flags, theirs.state.flags)
        assert torch.allclose(ours.label, theirs.label, atol=1e-3)
        for mine, other in ((ours.segmentation, theirs.segmentation), (ours.localisation, theirs.localisation)):
            assert torch.allclose(mine.weights, other.weights, atol=1e-5)
            assert torch.equal(mine.age, other.age)
            assert torch.equal(mine.last_slot, other.last_slot)
