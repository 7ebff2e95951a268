"""WSInfer's own command:  run_wsinfer.py SLIDE NETWORK_FOLDER OUT WORKERS

Only its look-up of the online list of models, done at import, is answered with an empty one. Its model file
(TorchScript, logits) is made from the same weights on the first, uncounted run.
"""

import json
import sys
from pathlib import Path

import wsinfer_zoo.client as zoo

zoo.load_registry = lambda *_, **__: zoo.ModelRegistry(models={})

CONFIGURATION = {
    "spec_version": "1.0",
    "architecture": "mobilenet_v2",
    "num_classes": 2,
    "class_names": ["normal", "tumor"],
    "name": "patch",
    "patch_size_pixels": 256,
    "spacing_um_px": 1.0,
    "transform": [{"name": "Resize", "arguments": {"size": 256}}, {"name": "ToTensor"}],
}


def main():
    slide, networks, out, workers = sys.argv[1:5]
    model, configuration = Path(networks, "wsinfer.pt"), Path(networks, "wsinfer.json")
    if not model.exists():
        import torch
        from network_torch import PatchNetwork

        network = PatchNetwork(Path(networks, "patch.npz"), softmax=False)
        torch.jit.trace(network, torch.rand(2, 3, 256, 256)).save(str(model))
        configuration.write_text(json.dumps(CONFIGURATION))
    slides = Path(out, "slides")
    slides.mkdir()
    (slides / Path(slide).name).symlink_to(slide)
    from wsinfer.cli.cli import cli

    arguments = ["--backend", "openslide", "--log-level", "error", "run", "--wsi-dir", str(slides)]
    arguments += [
        "--results-dir",
        str(Path(out, "results")),
        "--config",
        str(configuration),
        "--model-path",
        str(model),
    ]
    arguments += ["--batch-size", "32", "--num-workers", workers, "--speedup"]
    cli(arguments, standalone_mode=False)


if __name__ == "__main__":
    main()
