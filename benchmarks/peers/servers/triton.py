"""The Triton server of the PyTriton wheel, with its Python backend, because the wheel has no ONNX Runtime backend."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers.servers.model import FILES, HOME, HOST, PORT, WORKERS, Model, free_port

MODEL = "from benchmarks.peers.servers.triton import TritonPythonModel as TritonPythonModel\n"
CONFIG = """
name: "%(name)s"
backend: "python"
max_batch_size: 64
input [%(inputs)s]
output [{ name: "probabilities", data_type: TYPE_FP32, dims: [-1] }]
instance_group [{ kind: KIND_CPU, count: %(workers)d }]
dynamic_batching { max_queue_delay_microseconds: 0 }
"""
IMAGES = '{ name: "images", data_type: TYPE_UINT8, dims: %s }'
TEXTS = """
  { name: "ids", data_type: TYPE_INT64, dims: [-1] },
  { name: "lengths", data_type: TYPE_INT64, dims: [1], reshape: { shape: [] } }
"""


class TritonPythonModel:
    def initialize(self, args) -> None:
        self.model = Model(FILES[args["model_name"]])
        self.inputs = [tensor.name for tensor in self.model.session.get_inputs()]

    def execute(self, requests):
        import triton_python_backend_utils as triton  # noqa: PLC0415

        feeds = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        return [
            triton.InferenceResponse([triton.Tensor("probabilities", output)]) for output in self.model.run_many(feeds)
        ]


def write_repository(package: Path) -> None:
    """Write the model repository, and the backend with the stub for this version of Python."""
    backend = HOME / "backends" / "python"
    shutil.copytree(package / "backends" / "python", backend)
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(package / "python_backend_stubs" / stub, backend)
    for name, path in FILES.items():
        folder = HOME / "models" / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(MODEL)
        model = Model(path)
        inputs = IMAGES % model.shape if model.is_image else TEXTS
        (folder / "config.pbtxt").write_text(CONFIG % {"name": name, "inputs": inputs, "workers": WORKERS})


if __name__ == "__main__":
    packages = Path(sysconfig.get_path("purelib"))
    package = packages / "pytriton" / "tritonserver"
    write_repository(package)
    # The stub embeds Python and needs the library of this environment's interpreter instead of the system's.
    os.environ["LD_LIBRARY_PATH"] = f"{sysconfig.get_config_var('LIBDIR')}:{packages / 'nvidia_pytriton.libs'}"
    os.environ["PYTHONPATH"] = f"{os.environ['PYTHONPATH']}:{packages}"
    options = {
        "model-repository": HOME / "models",
        "backend-directory": HOME / "backends",
        "http-address": HOST,
        "http-port": PORT,
        "metrics-address": HOST,
        "metrics-port": free_port(),
        "allow-grpc": "false",
        "log-info": "false",
    }
    server = package / "bin" / "tritonserver"
    os.execv(server, [str(server), *(f"--{key}={value}" for key, value in options.items())])
