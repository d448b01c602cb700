"""Inference on a CPU: torch, torch.compile, ONNX Runtime and OpenVINO, on plain and rewritten graphs."""
