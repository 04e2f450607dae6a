"""Export of finished runs as ONNX bundles, with proof that the graph is the trained model."""

# Importing `service` disables the telemetry of onnxruntime, so it must come before the first import of onnxruntime.
import service as service
