"""The networks of weights, ready for inference."""

from __future__ import annotations

import torch

from rts_batch.config import Profile
from rts_batch.model.fast.compiled import Engine
from rts_batch.model.fast.compiled_network import CompiledRTS
from rts_batch.model.fast.networks import fast, set_precision
from rts_batch.model.rts import RTS
from rts_batch.model.sta import STA
from rts_batch.weights.registry import Weights, build_model, build_sta


def fast_networks(
    weights: Weights, device: str | torch.device, *, profile: Profile = "exact"
) -> tuple[RTS, STA | None]:
    """Build the network of `weights`, and its box-to-mask network if it has one, ready for inference on `device`.

    On a CPU, what a video needs is compiled for the weights' crop size here, so that no video waits for it.

    Args:
        weights: of the networks.
        device: they are put on.
        profile: the precision, which is set for the whole process where it must be (`set_precision`).
    """
    network, sta = laid_out_networks(weights, device, profile=profile, lanes=1, threads=torch.get_num_threads())
    compile_ahead(network, weights.tracker_config.crop_size)
    return network, sta


def laid_out_networks(
    weights: Weights, device: str | torch.device, *, profile: Profile, lanes: int, threads: int
) -> tuple[RTS, STA | None]:
    """`fast_networks` up to what is compiled, which begins threads; `threads` is how many will compute.

    There is a stream for each of `lanes`, the threads that will ask.
    """
    set_precision(device, profile)
    sta = build_sta(weights, device)
    engine = Engine(threads=threads, streams=min(lanes, threads), fingerprint=weights.fingerprint)
    network = fast(build_model(weights, device), profile=profile, engine=engine)
    return network, None if sta is None else fast(sta)


def compile_ahead(network: RTS, crop_size: tuple[int, int]) -> None:
    """Compile what a video needs, where anything is compiled."""
    if isinstance(network, CompiledRTS):
        network.prepare(crop_size)
