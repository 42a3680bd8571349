"""RTS: the assembled network (paper fig. 2; spec rts-network §1), as the steps that a tracker or a trainer takes.

==========================  =============================================
paper                       here
==========================  =============================================
B_θ                         `feature_extractor`
F_θ, A_θ                    `target_model`
E_θ, W_θ                    `label_encoder`
G_θ, P_θ                    `classifier`
H_θ                         `clf_encoder`
D_θ                         `decoder`
T_τ, T_κ                    `learner.apply_filter` with the filter τ or κ
==========================  =============================================

The attribute names are those of the official checkpoints, so a state dict of theirs loads without renaming. N counts
frames, S sequences (targets side by side, 1 in the tracker).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rts_batch.config import ModelConfig
from rts_batch.model.backbones import FeatureMaps, Neck, build_backbone
from rts_batch.model.decoder import Decoder
from rts_batch.model.instance_model import InstanceModel
from rts_batch.model.label_encoder import LabelEncoder
from rts_batch.model.layers import init_normal, resize
from rts_batch.model.learner import apply_filter
from rts_batch.model.target_model import TargetModel


@dataclass(frozen=True)
class Features:
    """What the network knows of a batch of B crops before any target model is applied."""

    maps: FeatureMaps
    segmentation: Tensor
    """x_s, `[B, C, h, w]` at stride 16."""
    localisation: Tensor
    """x_c, `[B, C, h/2, w/2]` at stride 32."""


class RTS(nn.Module):
    """The network of *Robust Visual Tracking by Segmentation*, or a smaller one of the same parts.

    BatchNorm always uses its stored statistics: `train()` leaves the module in eval mode (spec rts-training §8).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = build_backbone(config.backbone)
        channels = self.feature_extractor.channels
        self.neck = Neck(channels, config.feature_layers, config.neck_dim)
        in_channels = self.neck.out_channels
        self.target_model = TargetModel(in_channels, config.feature_dim, config.num_filters, config.target_filter_size)
        self.label_encoder = LabelEncoder(config.label_encoder_dims, config.num_filters)
        self.clf_encoder = LabelEncoder(config.label_encoder_dims, config.num_filters, stride=1)
        self.classifier = InstanceModel(
            in_channels,
            config.feature_dim,
            config.localisation_filter_size,
            hinge_threshold=config.hinge_threshold,
            activation_leak=config.activation_leak,
            reg=config.localisation_reg,
        )
        scores = config.num_filters + config.previous_mask
        self.decoder = Decoder(channels, scores, config.decoder_dims, upsampling=config.upsampling)
        init_normal(self.feature_extractor)
        self.eval()

    def train(self, mode: bool = True) -> RTS:
        """Leave the network in eval mode whatever `mode`: BatchNorm statistics never change in RTS."""
        return super().train(False)

    def extract(self, crops: Tensor) -> Features:
        """Run B_θ, F_θ and G_θ on crops in RGB, `[B, 3, H, W] float32`, 0…255."""
        return self.branch(self.feature_extractor(self.feature_extractor.normalise(crops)))

    def segmentation_features(self, crops: Tensor) -> Tensor:
        """Return x_s alone, as in `extract`, without what it does not depend on."""
        return self._of_crops(crops, self.target_model.feature_extractor)

    def localisation_features(self, crops: Tensor) -> Tensor:
        """Return x_c alone, as in `extract`, without what it does not depend on."""
        return self._of_crops(crops, self.classifier.feature_extractor)

    def _of_crops(self, crops: Tensor, branch: nn.Module) -> Tensor:
        """Run F_θ or G_θ; on the CPU one crop after the other, whose maps then stay in the cache."""
        backbone = self.feature_extractor
        batches = crops.split(1 if crops.device.type == "cpu" else len(crops))
        return torch.cat(
            [branch(self.neck(backbone(backbone.normalise(each), deepest=self.neck.deepest))) for each in batches]
        )

    def branch(self, maps: FeatureMaps) -> Features:
        """Run F_θ and G_θ on backbone maps."""
        shared = self.neck(maps)
        return Features(maps, self.target_model.feature_extractor(shared), self.classifier.feature_extractor(shared))

    def localise(self, x_c: Tensor, kappa: Tensor) -> Tensor:
        """Return the score map s_c = T_κ(x_c), `[N, S, h', w']`, of x_c `[N, S, C, h, w]`, κ `[S, 1, C, k, k]`."""
        return apply_filter(x_c, kappa)[:, :, 0]

    def segment(
        self,
        features: Tensor,
        maps: FeatureMaps,
        tau: Tensor,
        score_map: Tensor | None,
        *,
        previous_mask: Tensor | None = None,
    ) -> Tensor:
        """Return mask logits, `[N, S, H, W]`: D_θ of T_τ(x_s) + H_θ(s_c).

        Args:
            features: x_s, `[N, S, C, h, w]`.
            maps: the backbone's maps, batch N·S.
            tau: τ, `[S, F, C, k, k]`.
            score_map: s_c, `[N, S, h', w']`; None leaves the localisation branch out (Table 1).
            previous_mask: the previous frame's mask probabilities in these crops, `[N, S, H, W]`; None where unknown.
                Read by networks with `config.previous_mask` only.
        """
        encoding = apply_filter(features, tau)
        if score_map is not None:
            encoding = encoding + self.encode_scores(score_map, encoding.shape[-2:])
        size = (16 * encoding.shape[-2], 16 * encoding.shape[-1])
        if self.config.previous_mask:
            # At stride 16, so that the decoder knows where the target was but has to draw its outline afresh.
            if previous_mask is None:
                previous_mask = encoding.new_zeros((*encoding.shape[:2], *size))
            coarse = functional.adaptive_avg_pool2d(previous_mask, (encoding.shape[-2], encoding.shape[-1]))
            encoding = torch.cat([encoding, coarse[:, :, None]], dim=2)
        logits = self.decoder(encoding.flatten(0, 1), maps, size)
        return logits[:, 0].unflatten(0, encoding.shape[:2])

    def encode_scores(self, score_map: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """Return H_θ(s_c) resized to `size`, `[N, S, F, *size]`, from the raw score map (§9)."""
        encoded = self.clf_encoder.label(score_map)
        return resize(encoded.flatten(0, 1), size).unflatten(0, encoded.shape[:2])
