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
    weights: Weights, device: str | torch.device, *, profile: Profile = "exact", lanes: int = 1
) -> tuple[RTS, STA | None]:
    """Build the network of `weights`, and its box-to-mask network if it has one, ready for inference on `device`.

    Sets the process's precision (`set_precision`). On a CPU, what every frame needs is compiled for the weights' crop
    size here, so that no video waits for it, with a stream for each of `lanes` threads that will ask.
    """
    set_precision(device, profile)
    sta = build_sta(weights, device)
    threads = torch.get_num_threads()
    engine = Engine(threads=threads, streams=min(lanes, threads), fingerprint=weights.fingerprint)
    network = fast(build_model(weights, device), profile=profile, engine=engine)
    if isinstance(network, CompiledRTS):
        network.prepare(weights.tracker_config.crop_size)
    return network, None if sta is None else fast(sta)
