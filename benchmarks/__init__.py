"""Measurements of the service, its models and its peers."""

# Importing the service turns off the usage reports of onnxruntime, BentoML and Ray for every measurement.
import service as service
