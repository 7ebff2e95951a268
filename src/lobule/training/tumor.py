"""Trains the two stages of a tumor model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lobule.training.bach import FieldImage, TileSource
from lobule.training.loop import fit
from lobule.training.networks import TileClassifier
from lobule.training.recipe import PatchSettings, TumorRecipe

__all__ = ["build_patch", "fit_patch"]

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
    return fit(network, draw, loss_of, settings.loop, folder=folder, seed=recipe.seed, say=say, steps=steps)
