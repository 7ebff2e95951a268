"""The benchmark's network for torch, its weights read from patch.npz beside the ONNX file."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from network import HIDDEN, blocks


class PatchNetwork(nn.Module):
    """N x 3 x 256 x 256 in 0..1 to N x 2: probabilities, or logits for a program that applies softmax itself."""

    def __init__(self, weights_path, *, softmax=True):
        super().__init__()
        stages, self.residual = [], []
        with np.load(weights_path) as file:
            weights = {name: torch.from_numpy(file[name]) for name in file.files}
        for block in blocks():
            row = []
            for layer in block.convolutions:
                groups = layer.channels_in if layer.depthwise else 1
                made = nn.Conv2d(
                    layer.channels_in,
                    layer.channels_out,
                    layer.side,
                    layer.stride,
                    layer.side // 2,
                    groups=groups,
                )
                _fill(made, weights, layer.name)
                row += [made, nn.ReLU6(inplace=True)] if layer.clipped else [made]
            stages.append(nn.Sequential(*row))
            self.residual.append(block.residual)
        self.stages = nn.ModuleList(stages)
        dense, norm, out = nn.Linear(1280, HIDDEN), nn.BatchNorm1d(HIDDEN, eps=1e-3), nn.Linear(HIDDEN, 2)
        _fill(dense, weights, "dense")
        _fill(out, weights, "out")
        norm.running_mean.copy_(weights["norm.mean"])
        norm.running_var.copy_(weights["norm.variance"])
        self.head = nn.Sequential(dense, nn.ReLU(), norm, out, *([nn.Softmax(1)] if softmax else []))
        self.eval()

    def forward(self, x):
        x = x * 2 - 1
        for stage, residual in zip(self.stages, self.residual):  # noqa: B905 (TorchScript knows no strict)
            x = x + stage(x) if residual else stage(x)
        return self.head(x.mean((2, 3)))


def _fill(layer, weights, name):
    with torch.no_grad():
        layer.weight.copy_(weights[f"{name}.weight"])
        layer.bias.copy_(weights[f"{name}.bias"])
