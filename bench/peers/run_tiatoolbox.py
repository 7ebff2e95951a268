"""TIAToolbox's PatchPredictor, its tissue mask included:  run_tiatoolbox.py SLIDE NETWORK_FOLDER OUT WORKERS"""

import sys
from pathlib import Path

import torch
from network_torch import PatchNetwork
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.models.models_abc import ModelABC


class Classifier(ModelABC):
    """The network as TIAToolbox wants it: batches of NHWC uint8."""

    def __init__(self, weights):
        super().__init__()
        self.network = PatchNetwork(weights)

    def forward(self, x):
        return self.network(x)

    @staticmethod
    def infer_batch(model, batch_data, device="cpu"):
        with torch.inference_mode():
            pixels = batch_data.to(device).permute(0, 3, 1, 2).float() / 255
            return model(pixels).cpu().numpy()

    @staticmethod
    def postproc(image):
        return image.argmax(-1)


def main():
    slide, networks, out, workers = sys.argv[1:5]
    where = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": 1.0}],
        patch_input_shape=[256, 256],
        stride_shape=[256, 256],
    )
    model = Classifier(Path(networks, "patch.npz"))
    predictor = PatchPredictor(model, batch_size=32, num_workers=int(workers), verbose=False)
    predictor.run(
        [Path(slide)],
        patch_mode=False,
        ioconfig=where,
        save_dir=Path(out, "tiatoolbox"),
        output_type="zarr",
        auto_get_mask=True,
        overwrite=True,
        return_probabilities=True,
    )


if __name__ == "__main__":
    main()
