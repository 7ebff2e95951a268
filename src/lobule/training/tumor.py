"""Trains the two stages of a tumor model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lobule.training.bach import FieldImage, TileSource
from lobule.training.composed import Frame, FrameSource
from lobule.training.loop import fit, seeded
from lobule.training.networks import RefineUNet, TileClassifier
from lobule.training.recipe import PatchSettings, RefineSettings, TumorRecipe

__all__ = ["build_patch", "build_refine", "fit_patch", "fit_refine", "refine_loss"]

Say = Callable[[str], None]


def build_patch(settings: PatchSettings) -> TileClassifier:
    """Returns the untrained tile classifier of a recipe."""
    return TileClassifier(2, settings.hidden, settings.dropout, settings.pretrained)


def fit_patch(
    recipe: TumorRecipe, fields: list[FieldImage], folder: Path, say: Say, steps: int | None = None
) -> nn.Module:
    """Trains the tile classifier on the training block; returns it in eval mode."""
    settings = recipe.patch
    source = TileSource(
        fields,
        recipe.field_mpp,
        settings.mpp,
        settings.tile_px,
        settings.min_tissue,
        settings.pale_share,
        settings.augment,
    )

    def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        tiles, labels = source.draw(rng, count)
        return torch.from_numpy(tiles), torch.from_numpy(labels)

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        tiles, labels = batch
        return functional.cross_entropy(
            network(tiles).float(), labels, label_smoothing=settings.label_smoothing
        )

    torch.manual_seed(recipe.seed)
    network = build_patch(settings)
    return fit(
        network,
        seeded(draw, recipe.seed),
        loss_of,
        settings.loop,
        folder=folder,
        seed=recipe.seed,
        say=say,
        steps=steps,
    )


def build_refine(settings: RefineSettings) -> RefineUNet:
    """Returns the untrained refining U-Net of a recipe."""
    return RefineUNet(settings.filters)


def refine_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Returns BCE + Dice over the batch; both (N, 1, H, W)."""
    logits = logits.float()
    cross = functional.binary_cross_entropy_with_logits(logits, truth)
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * truth).sum() + 1
    return cross + 1 - overlap / (probability.sum() + truth.sum() + 1)


def fit_refine(
    recipe: TumorRecipe, frames: list[Frame], folder: Path, say: Say, steps: int | None = None
) -> nn.Module:
    """Trains the refining U-Net on composed slides; returns it in eval mode."""
    settings = recipe.refine
    source = FrameSource(frames, settings)

    def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(array) for array in source.draw(rng, count))

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return refine_loss(network(batch[0], batch[1]), batch[2])

    torch.manual_seed(recipe.seed)
    network = build_refine(settings)
    return fit(
        network,
        seeded(draw, recipe.seed),
        loss_of,
        settings.loop,
        folder=folder,
        seed=recipe.seed,
        say=say,
        steps=steps,
    )
