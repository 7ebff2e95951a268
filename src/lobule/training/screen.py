"""Trains a screening network: a small student of the patch network that settles the easy tiles.

It starts as the patch network's own first stages, and sees tiles at half their resolution.
The student learns the patch network's probabilities (soft cross-entropy) and, beside them, the leading components
of the features that the patch network pools (after FitNets, Romero et al. 2015): a tile then teaches hundreds of
numbers instead of one. The features' output is left out of the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lobule.errors import ModelOutputError
from lobule.training.loop import fit, seeded
from lobule.training.networks import ScreenNet
from lobule.training.recipe import ScreenNetwork, ScreenRecipe
from lobule.training.screen_agreement import odds
from lobule.training.screen_tiles import ScreenTiles

__all__ = ["build_screen", "calibrate", "fit_screen", "screen_loss", "start_from"]

Say = Callable[[str], None]
Floats = NDArray[np.float32]


def build_screen(settings: ScreenNetwork) -> ScreenNet:
    """Returns the untrained screening network of a recipe."""
    return ScreenNet(2, settings.stages, settings.hidden, settings.features)


def start_from(network: ScreenNet, patch: Path, halved: NDArray[np.uint8]) -> None:
    """Gives ``network`` the convolutions of the stages that it shares with the exported classifier ``patch``.

    Normalizations are folded into exported convolutions. They are opened again on ``halved`` tiles (N, H, W, 3):
    each gets the statistics that its layer has there, and the scale and shift that undo them.
    Raises ModelOutputError where the graph has no such convolutions.
    """
    onnx = import_module("onnx")
    graph = onnx.load(str(patch)).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    shifts = {node.input[1]: node.input[2] for node in graph.node if node.op_type == "Conv"}
    hooks = []
    layers = [layer for part in (network.stem, network.blocks) for layer in part.modules()]
    convolutions = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and name.startswith(("stem.", "blocks."))
    ]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    for (name, convolution), norm in zip(convolutions, norms, strict=True):
        key = f"network.encoder.{name}.weight"
        if key not in arrays or arrays[key].shape != tuple(convolution.weight.shape):
            raise ModelOutputError(patch.parent.name, f"{patch.name} has no convolution {key} to start from")
        with torch.no_grad():
            convolution.weight.copy_(torch.tensor(arrays[key]))
        hooks.append(norm.register_forward_pre_hook(_opening(torch.tensor(arrays[shifts[key]]))))
    network.eval()
    with torch.no_grad():
        network(torch.from_numpy(halved))
    for hook in hooks:
        hook.remove()


def _opening(shift: torch.Tensor) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
    def open_(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        spread, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(spread)
        norm.weight.copy_((spread + norm.eps).sqrt())
        norm.bias.copy_(mean + shift)

    return open_


def screen_loss(
    outputs: tuple[torch.Tensor, torch.Tensor],
    probability: torch.Tensor,
    features: torch.Tensor,
    feature_weight: float,
) -> torch.Tensor:
    """Returns soft cross-entropy to ``probability`` (N,) of tumor + weighted squared error of feature maps."""
    logits, maps = outputs[0].float(), outputs[1].float()
    target = torch.stack([1 - probability, probability], 1)
    return functional.cross_entropy(logits, target) + feature_weight * functional.mse_loss(maps, features)


def fit_screen(
    recipe: ScreenRecipe,
    data: ScreenTiles,
    weights: NDArray[np.float64],
    patch: Path,
    folder: Path,
    say: Say,
    steps: int | None = None,
) -> ScreenNet:
    """Trains the screening network on judged tiles, drawn by ``weights`` (N,); returns it in eval mode.

    It starts from the exported patch network ``patch``.
    """
    upto = np.cumsum(weights) / weights.sum()

    def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        at = np.sort(np.searchsorted(upto, rng.random(count), side="right"))
        tiles, features = data.tiles[at], data.features[at].astype(np.float32)
        # one symmetry of the square for each eighth of the batch
        for part, symmetry in zip(np.array_split(rng.permutation(count), 8), range(8), strict=True):
            for array in (tiles, features):
                turned = np.rot90(array[part], symmetry % 4, axes=(1, 2))
                array[part] = turned[:, :, ::-1] if symmetry >= 4 else turned
        return (
            torch.from_numpy(tiles),
            torch.from_numpy(data.probability[at]),
            torch.from_numpy(features.transpose(0, 3, 1, 2)),
        )

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return screen_loss(network(batch[0]), batch[1], batch[2], recipe.network.feature_weight)

    torch.manual_seed(recipe.seed)
    network = build_screen(recipe.network)
    start_from(network, patch, data.tiles[:: max(1, len(data.tiles) // 256)][:256])
    fit(
        network,
        seeded(draw, recipe.seed),
        loss_of,
        recipe.loop,
        folder=folder,
        seed=recipe.seed,
        say=say,
        steps=steps,
    )
    return network


def calibrate(network: ScreenNet, own: Floats, wanted: Floats) -> tuple[float, float]:
    """Scales and shifts the network's logits so that its probabilities lie nearest to the patch network's.

    ``own`` (N,) are the network's probabilities on tiles of the selection part, ``wanted`` the patch network's.
    Least squares of probabilities by Gauss-Newton steps. Returns the scale and the shift that were applied.
    """

    x, y = odds(own), wanted.astype(np.float64)
    scale, shift = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-(scale * x + shift)))
        slope = (p * (1 - p))[:, None] * np.stack([x, np.ones_like(x)], 1)
        step = np.linalg.lstsq(slope, y - p, rcond=None)[0]
        scale, shift = scale + 0.5 * float(step[0]), shift + 0.5 * float(step[1])
    last: Any = network.head[-1]
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale)
        last.bias.add_(torch.tensor([-shift / 2, shift / 2]))
    return scale, shift
