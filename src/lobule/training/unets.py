"""The fourteen U-Nets of Kasturi et al. 2022 (Table I), by name: two plain ones, six encoders with or without weights.

Networks take uint8 pixels (N, H, W, 3) as they come off a slide and give logits (N, maps, H, W).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lobule.errors import WeightsNotFoundError
from lobule.runtimes.torch_builds import import_beside_torch
from lobule.training.loop import UNREADABLE

__all__ = ["ENCODERS", "EncoderUNet", "PlainUNet", "size_multiple"]

ENCODERS = ("resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "densenet121", "densenet201")
"""As segmentation-models-pytorch names them."""

_WIDTHS = (64, 128, 256, 512, 1024)
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def size_multiple(name: str) -> int:
    """Of which number height and width of a network's input must be multiples."""
    return 2 ** (len(_WIDTHS) - 1) if name in ("basic-unet", "modified-unet") else 32


def _block(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers.append(nn.Conv2d(width, outputs, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """The U-Net of 64 to 1024 channels; ``batch_norm`` after each 3 × 3 convolution makes it the modified one.

    Two 3 × 3 convolutions a level (padded, where the original crops), 2 × 2 max pooling, 2 × 2 up-convolution,
    concatenation, 1 × 1 to the logits. Sides must be multiples of 16.
    """

    def __init__(self, maps: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(i, o, batch_norm) for i, o in pairwise((3, *_WIDTHS)))
        rising = list(pairwise(_WIDTHS[::-1]))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, 2) for deep, flat in rising)
        self.up = nn.ModuleList(_block(deep, flat, batch_norm) for deep, flat in rising)
        self.out = nn.Conv2d(_WIDTHS[0], maps, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.permute(0, 3, 1, 2).float() / 255
        skips = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for grow, up, skip in zip(self.grow, self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([skip, grow(x)], 1))
        return self.out(x)


class EncoderUNet(nn.Module):
    """segmentation-models-pytorch's U-Net over one of `ENCODERS`. Sides must be multiples of 32.

    ``weights``: "none", "imagenet" (the library fetches them) or a file of the encoder's weights. Raises
    WeightsNotFoundError where they cannot be had or do not fit, MissingDependencyError without the library.
    """

    def __init__(self, name: str, weights: str, maps: int, beside: Path) -> None:
        super().__init__()
        library: Any = import_beside_torch("segmentation_models_pytorch", "train", "building this network")
        fetched = "imagenet" if weights == "imagenet" else None
        try:
            self.network = library.Unet(name, encoder_weights=fetched, classes=maps)
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsNotFoundError(
                name, f'its ImageNet weights cannot be fetched ({error}); give a file, or weights = "none"'
            ) from error
        if weights not in ("none", "imagenet"):
            self._load(beside / weights, name)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def _load(self, path: Path, name: str) -> None:
        if not path.is_file():
            raise WeightsNotFoundError(
                name, f"{path} is not a file; give the encoder's weights (.pth, .safetensors)"
            )
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            if path.suffix == ".safetensors":
                held = load_file(path)
            else:
                held = torch.load(path, map_location="cpu", weights_only=True)
            # the library's own loader drops the classifier, which published files carry
            self.network.encoder.load_state_dict(dict(held))
        except (*UNREADABLE, AttributeError, TypeError, SafetensorError) as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            raise WeightsNotFoundError(
                name, f"{path} does not hold this encoder's weights ({why[:200]}); give the encoder's weights"
            ) from error

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
