"""Trains a nuclei model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lobule.training.loop import fit
from lobule.training.networks import SegmentUNet
from lobule.training.nuclei_fields import CropSource, NucleiField
from lobule.training.recipe import NucleiRecipe, SegmentSettings

__all__ = ["build_segment", "fit_segment", "segment_loss"]


def build_segment(settings: SegmentSettings) -> SegmentUNet:
    """Returns the untrained nuclei network of a recipe; its two maps are nucleus and distance."""
    return SegmentUNet(2, settings.decoder, settings.pretrained)


def segment_loss(logits: torch.Tensor, targets: torch.Tensor, distance_weight: float) -> torch.Tensor:
    """Returns BCE + Dice on the nucleus map plus weighted L1 on the distance map; all (N, 2, H, W)."""
    logits = logits.float()
    mask, distance = targets[:, 0], targets[:, 1]
    cross = functional.binary_cross_entropy_with_logits(logits[:, 0], mask)
    probability = torch.sigmoid(logits[:, 0])
    overlap = 2 * (probability * mask).sum() + 1
    dice = 1 - overlap / (probability.sum() + mask.sum() + 1)
    apart = (torch.sigmoid(logits[:, 1]) - distance).abs().mean()
    return cross + dice + distance_weight * apart


def fit_segment(
    recipe: NucleiRecipe,
    fields: list[NucleiField],
    folder: Path,
    say: Callable[[str], None],
    steps: int | None = None,
) -> nn.Module:
    """Trains the nuclei network on the training fields; returns it in eval mode."""
    settings = recipe.segment
    source = CropSource(fields, settings)

    def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        crops, targets = source.draw(rng, count)
        return torch.from_numpy(crops), torch.from_numpy(targets)

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return segment_loss(network(batch[0]), batch[1], settings.distance_weight)

    torch.manual_seed(recipe.seed)
    network = build_segment(settings)
    return fit(network, draw, loss_of, settings.loop, folder=folder, seed=recipe.seed, say=say, steps=steps)
