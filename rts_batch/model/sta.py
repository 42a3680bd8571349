"""STA: from a box to a mask in the first frame (Zhao et al., ICCV 2021; spec rts-network §11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rts_batch.config import StaConfig
from rts_batch.model.backbones import Neck, build_backbone
from rts_batch.model.decoder import Decoder
from rts_batch.model.label_encoder import LabelEncoder
from rts_batch.model.layers import init_normal
from rts_batch.model.learner import apply_filter
from rts_batch.model.target_model import TargetModel


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw boxes as masks of ones, `[..., H, W] float32` (§11.2).

    Boxes `[..., 4]` are x, y, w, h in crop pixels, truncated towards zero; a negative corner then moves one pixel
    towards zero, as the released code's second rounding does.
    """
    corner, extent = boxes.trunc().split(2, dim=-1)
    corner = (corner + 0.5).trunc()
    extent = (extent + 0.5).trunc()
    masks = []
    for axis, length in ((0, size[1]), (1, size[0])):
        place = torch.arange(length, device=boxes.device, dtype=boxes.dtype)
        start, end = corner[..., axis, None], (corner + extent)[..., axis, None]
        masks.append((place >= start) & (place < end))
    return (masks[1][..., :, None] & masks[0][..., None, :]).to(boxes.dtype)


class STA(nn.Module):
    """The box-to-mask network: a mask decoded from the box, then refined by a second few-shot learner on itself."""

    def __init__(self, config: StaConfig) -> None:
        super().__init__()
        self.config = config
        filters, dims = config.num_filters, config.label_encoder_dims
        self.feature_extractor = build_backbone(config.backbone)
        channels = self.feature_extractor.channels
        shape = (config.feature_dim, filters, config.target_filter_size)
        self.neck = Neck(channels, config.feature_layers, config.neck_dim)
        self.target_model = TargetModel(self.neck.out_channels, *shape)
        self.target_model_segm = TargetModel(0, *shape)
        self.decoder = Decoder(channels, 2 * filters, config.decoder_dims, upsampling=config.upsampling)
        self.label_encoder = LabelEncoder(dims, filters, context_channels=config.feature_dim)
        self.bbox_encoder = LabelEncoder(dims, filters, context_channels=config.feature_dim)
        self.segm_encoder = LabelEncoder(dims[:3], filters)
        init_normal(self.feature_extractor)
        self.eval()

    def train(self, mode: bool = True) -> STA:
        """Leave the network in eval mode whatever `mode`, as `RTS.train` does."""
        return super().train(False)

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and the refined mask logits, `[N, S, H, W]` each (§11.3).

        All N frames of a sequence are fitted by one filter.

        Args:
            images: `[N, S, 3, H, W] float32` as the caller normalised them (the released tracker: not at all, §11.5).
            boxes: `[N, S, 4]` as x, y, w, h in crop pixels.
        """
        size = (images.shape[-2], images.shape[-1])
        maps = self.feature_extractor(images.flatten(0, 1))
        features = self.target_model.feature_extractor(self.neck(maps)).unflatten(0, images.shape[:2])
        drawn = box_masks(boxes, size)
        box_encoding, _ = self.label_encoder(drawn, features)
        labels, weights = self.bbox_encoder(drawn, features)

        def decode(tau: Tensor) -> Tensor:
            scores = torch.cat([box_encoding, apply_filter(features, tau)], dim=2)
            logits = self.decoder(scores.flatten(0, 1), maps, size)
            return logits[:, 0].unflatten(0, images.shape[:2])

        iterations = self.config.iterations
        first = decode(self.target_model.learn(features, labels, weights, iterations=iterations)[-1])
        labels, weights = self.segm_encoder(torch.sigmoid(first))
        refined = decode(self.target_model_segm.learn(features, labels, weights, iterations=iterations)[-1])
        return first, refined
