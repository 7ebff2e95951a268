"""The side tower that trains: needs torch, hands over a model folder (ONNX graphs and their card)."""
