"""RTS with its convolutional parts compiled; learners, memories and score maps stay PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rts_batch.config import LayerName
from rts_batch.model.backbones import Backbone, FeatureMaps, MobileNetV2
from rts_batch.model.decoder import LEVELS, Decoder
from rts_batch.model.fast.compiled import Compiled, Engine, Part, Precision
from rts_batch.model.label_encoder import LabelEncoder
from rts_batch.model.rts import RTS, Features

THIN_BLOCKS = 7
"""Of MobileNetV2, to stride 8: little of its time, and nearly all of what bfloat16 would change."""


class CompiledRTS(RTS):
    """Identical to the network that it is made of, up to rounding.

    Args:
        network: in eval mode, BatchNorm folded; its modules are kept for what is not compiled.
        precision: of backbone, features and decoder; encoders are float32 always, and so are all inputs and outputs.
        engine: how the compiled parts run.
    """

    def __init__(self, network: RTS, engine: Engine, *, precision: Precision = "f32") -> None:
        nn.Module.__init__(self)
        self.config = network.config
        for name, child in network.named_children():
            setattr(self, name, child)

        def compile_part(name: str, function: Callable[..., tuple[Tensor, ...]], *modules: nn.Module) -> Compiled:
            return Compiled(name, Part(function, *modules), engine, precision=precision)

        backbone, neck = network.feature_extractor, network.neck
        of_segmentation, of_localisation = network.target_model.feature_extractor, network.classifier.feature_extractor
        begin, go_on = halves(backbone, precision)
        self._begin: Compiled | None = None
        if begin is not None:
            self._begin = Compiled("begin", Part(lambda crop: begin(backbone.normalise(crop)), backbone), engine)

        def maps_of(*inputs: Tensor, deepest: LayerName = "layer4") -> FeatureMaps:
            return go_on(*(inputs if begin else (backbone.normalise(inputs[0]),)), deepest=deepest)

        def extract(*inputs: Tensor) -> tuple[Tensor, ...]:
            maps = maps_of(*inputs)
            shared = neck(maps)
            new = list(maps.values())[len(inputs) if begin else 0 :]  # what is handed in is not handed back
            return (*new, of_segmentation(shared), of_localisation(shared))

        def features(branch: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
            return lambda *inputs: (branch(neck(maps_of(*inputs, deepest=neck.deepest))),)

        parts = (backbone, neck, of_segmentation, of_localisation)
        self._extract = compile_part("extract", extract, *parts)
        self._segmentation = compile_part("x_s", features(of_segmentation), *parts)
        self._localisation = compile_part("x_c", features(of_localisation), *parts)
        self.decoder = CompiledDecoder(network.decoder, compile_part)  # type: ignore[assignment]
        self.label_encoder = CompiledEncoder("E", network.label_encoder, engine)  # type: ignore[assignment]
        self.clf_encoder = CompiledEncoder("H", network.clf_encoder, engine)  # type: ignore[assignment]
        self.eval()

    def extract(self, crops: Tensor) -> Features:
        begun = self._begun(crops)
        *maps, x_s, x_c = self._extract(*begun)
        if self._begin is not None:
            maps = [*begun, *maps]
        return Features(dict(zip(reversed(LEVELS), maps, strict=True)), x_s, x_c)

    def segmentation_features(self, crops: Tensor) -> Tensor:
        return self._segmentation(*self._begun(crops))[0]

    def localisation_features(self, crops: Tensor) -> Tensor:
        return self._localisation(*self._begun(crops))[0]

    def _begun(self, crops: Tensor) -> tuple[Tensor, ...]:
        return (crops,) if self._begin is None else self._begin(crops)

    def prepare(self, crop_size: tuple[int, int]) -> None:
        """Compile what a video needs for crops of this size (H, W), so that none waits for it."""
        crop = torch.zeros(1, 3, *crop_size)
        found = self.extract(crop)
        channels = self.config.num_filters + self.config.previous_mask
        self.decoder(crop.new_zeros(1, channels, *found.segmentation.shape[-2:]), found.maps, crop_size)
        self.label_encoder(crop.new_zeros(1, 1, *crop_size))
        even = 1 - self.config.localisation_filter_size % 2
        self.clf_encoder.label(crop.new_zeros(1, 1, *(side + even for side in found.localisation.shape[-2:])))
        self.segmentation_features(crop)
        self.localisation_features(crop)


def halves(
    backbone: Backbone, precision: Precision
) -> tuple[Callable[[Tensor], tuple[Tensor, ...]] | None, Callable[..., FeatureMaps]]:
    """Split a backbone into what runs in float32 (if that is another precision) and the rest.

    Returns:
        The first half, of a normalised crop to its taps and last map; the second, of those, or of the crop where there
        is no first half, to the maps down to `deepest`.
    """
    if precision == "f32" or not isinstance(backbone, MobileNetV2):
        return None, backbone
    blocks = list(backbone.features)

    def begin(image: Tensor) -> tuple[Tensor, ...]:
        taps = []
        x = image
        for index, block in enumerate(blocks[:THIN_BLOCKS]):
            x = block(x)
            if index in backbone.taps:
                taps.append(x)
        return tuple(taps)

    def go_on(*taps: Tensor, deepest: LayerName = "layer4") -> FeatureMaps:
        maps = dict(zip([backbone.taps[i] for i in range(THIN_BLOCKS) if i in backbone.taps], taps, strict=True))
        x = taps[-1]  # the last thin block is a tap
        for index, block in enumerate(blocks[THIN_BLOCKS:], start=THIN_BLOCKS):
            x = block(x)
            if index in backbone.taps:
                maps[backbone.taps[index]] = x
            if backbone.taps.get(index) == deepest:
                break
        return maps

    return begin, go_on


class CompiledDecoder(nn.Module):
    """D_θ; see `Decoder`. Logits have sixteen times the encoding's size.

    Where the last step only resizes the one map of logits, OpenCV does it: OpenVINO lays maps out in blocks of sixteen
    channels and resizes all sixteen, in an eighth of the decoder's time, and PyTorch takes five times as long.
    """

    def __init__(self, decoder: Decoder, compile_part: Callable[..., Compiled]) -> None:
        super().__init__()
        factor = 8 if decoder.project.upsampling == "bilinear" else 16

        def decode(scores: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
            size = (factor * int(scores.shape[-2]), factor * int(scores.shape[-1]))
            return (decoder(scores, dict(zip(LEVELS, maps, strict=True)), size),)

        self._decode = compile_part("decoder", decode, decoder)

    def forward(self, scores: Tensor, maps: FeatureMaps, size: tuple[int, int]) -> Tensor:
        assert size == (16 * scores.shape[-2], 16 * scores.shape[-1])
        return _enlarged(self._decode(scores, *(maps[level] for level in LEVELS))[0], size)


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[B, 1, h, w] float32` bilinearly to `size` (H, W); the input itself where it fits."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    resized = [cv2.resize(each.numpy(), size[::-1], interpolation=cv2.INTER_LINEAR) for each in maps[:, 0]]
    return torch.from_numpy(np.stack(resized))[:, None]


class CompiledEncoder(nn.Module):
    """E_θ with W_θ, or H_θ; see `LabelEncoder`."""

    def __init__(self, name: str, encoder: LabelEncoder, engine: Engine) -> None:
        super().__init__()

        def both(values: Tensor) -> tuple[Tensor, ...]:
            x = encoder.trunk(values)
            return encoder.label_pred(x), encoder.samp_w_pred(x)

        def label(values: Tensor) -> tuple[Tensor, ...]:
            return (encoder.label_pred(encoder.trunk(values)),)

        self._both = Compiled(f"{name} both", Part(both, encoder), engine)
        self._label = Compiled(f"{name} label", Part(label, encoder), engine)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        labels, weights = self._both(values.flatten(0, 1)[:, None])
        return labels.unflatten(0, values.shape[:2]), weights.unflatten(0, values.shape[:2])

    def label(self, values: Tensor) -> Tensor:
        """Return the label head alone, `[N, S, F, h, w]`."""
        return self._label(values.flatten(0, 1)[:, None])[0].unflatten(0, values.shape[:2])
