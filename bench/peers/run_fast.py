"""FAST's own stream, from slide to stitched heatmap:  run_fast.py SLIDE NETWORK_FOLDER OUT ENGINE

Tissue by FAST's color threshold (its network for that is downloaded, so it is not used), patches of 256 px at
magnification 10, which FAST takes for 1 um/px, at least half tissue, one patch a call, heatmap as HDF5.
"""

import os
import sys
from pathlib import Path

import fast

slide, networks, out, engine = sys.argv[1:5]
fast.Reporter.setGlobalReportMethod(fast.Reporter.NONE)
image = fast.WholeSlideImageImporter.create(slide).runAndGetOutputData()
try:
    image.getMagnification()
except RuntimeError:
    image.setMagnification(
        40
    )  # FAST reads no resolution of a plain TIFF; the harness's slides have 0.25 um/px
tissue = fast.TissueSegmentation.create(True).connect(image)
patches = fast.PatchGenerator.create(256, 256, magnification=10, maskThreshold=0.5)
patches.connect(0, image)
patches.connect(1, tissue)
file, name = {"openvino": ("patch.xml", "OpenVINO"), "onnxruntime": ("patch_b1.onnx", "ONNXRuntime")}[engine]
network = fast.NeuralNetwork.create(str(Path(networks, file)), scaleFactor=1 / 255, inferenceEngine=name)
network.connect(patches)
heatmap = fast.RunUntilFinished.create().connect(fast.PatchStitcher.create().connect(network))
fast.HDF5TensorExporter.create(str(Path(out, "heatmap.hd5"))).connect(heatmap).run()
sys.stdout.flush()
os._exit(0)  # FAST's threads and OpenCL may crash while the interpreter ends
