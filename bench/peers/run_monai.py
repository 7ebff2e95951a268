"""MONAI's whole-slide classes:  run_monai.py SLIDE NETWORK_FOLDER OUT WORKERS

ForegroundMask on the coarsest level, PatchWSIDataset at 1 um/px (the 1/4 level) on the grid of patches at least half
in tissue, MONAI's DataLoader, one call of the network a batch, heatmap as .npy. The loop around it is this script's:
less than MONAI's own evaluator does, in its favor.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, PatchWSIDataset, WSIReader
from monai.transforms import CastToTyped, Compose, ForegroundMask, ScaleIntensityRanged
from network_torch import PatchNetwork

SIDE, LEVEL, BATCH = 256, 1, 32


def tissue_patches(slide):
    """(rows, columns) of the grid, and the (row, column) of every patch at least half in tissue."""
    reader = WSIReader("openslide")
    image = reader.read(slide)
    coarsest = reader.get_level_count(image) - 1
    picture, _ = reader.get_data(image, level=coarsest)
    mask = np.asarray(ForegroundMask(hsv_threshold={"S": "otsu"})(picture)).squeeze() > 0
    height, width = reader.get_size(image, LEVEL)
    rows, columns = height // SIDE, width // SIDE
    cell = SIDE * reader.get_downsample_ratio(image, LEVEL) / reader.get_downsample_ratio(image, coarsest)

    def share(row, column):
        box = (
            slice(round(row * cell), round((row + 1) * cell)),
            slice(round(column * cell), round((column + 1) * cell)),
        )
        return mask[box].mean()

    kept = [(row, column) for row in range(rows) for column in range(columns) if share(row, column) >= 0.5]
    return (rows, columns), kept, reader.get_downsample_ratio(image, LEVEL)


def main():
    slide, networks, out, workers = sys.argv[1:5]
    shape, places, downsample = tissue_patches(slide)
    step = round(SIDE * downsample)
    samples = [{"image": slide, "location": [row * step, column * step]} for row, column in places]
    prepare = Compose([CastToTyped("image", torch.float32), ScaleIntensityRanged("image", 0, 255, 0, 1)])
    patches = PatchWSIDataset(
        samples,
        patch_size=SIDE,
        patch_level=LEVEL,
        include_label=False,
        center_location=False,
        transform=prepare,
        reader="openslide",
    )
    network = PatchNetwork(Path(networks, "patch.npz"))
    found = []
    with torch.inference_mode():
        for batch in DataLoader(patches, batch_size=BATCH, num_workers=int(workers)):
            found.append(network(batch["image"].as_tensor())[:, 1].numpy())
    heatmap = np.zeros(shape, np.float32)
    for place, value in zip(places, np.concatenate(found), strict=True):
        heatmap[place] = value
    np.save(Path(out, "heatmap.npy"), heatmap)


if __name__ == "__main__":
    main()
