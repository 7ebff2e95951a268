"""How many patches a rival's output folder holds, printed as one number; run by that rival's interpreter."""

import csv
import json
import pathlib
import sys


def count(out):
    for path in out.rglob("*.hd5"):
        import h5py

        with h5py.File(path, "r") as file:
            return int((file["tensor"][()].sum(-1) > 0.5).sum())
    for path in out.rglob("heatmap.npy"):
        import numpy

        return int((numpy.load(path) > 0).sum())
    for path in out.rglob("model-outputs-csv/*.csv"):
        with path.open() as stream:
            return sum(1 for _ in csv.DictReader(stream))
    for path in out.rglob("*.zarr"):
        import zarr

        return int(zarr.open(str(path), mode="r")["probabilities"].shape[0])
    raise SystemExit("no heatmap in " + str(out))


print(json.dumps(count(pathlib.Path(sys.argv[1]))))
