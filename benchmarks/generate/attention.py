"""CPU time of one decode step: the exported graph, and com.microsoft.GroupQueryAttention with the same weights.

    python -m benchmarks.generate.attention [--rounds 2]

The model has the architecture of text-transformer, random weights and a context of 1,024. Every row holds between half
of the cache's capacity and one token less than all. `gqa` updates its caches in place; `gqa copied` is the same graph
on outputs of its own, which become the next inputs. The methods are measured in turn, and each figure is the least of
the rounds. Neither bits nor logits are compared.

Shapes: B rows, S steps, P past steps, D model width, H heads, K head size, C capacity.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental import _config as fx_config
from torch.nn.functional import linear
from torch.onnx.ops import symbolic_multi_out

from export.graph.cached_decoder import CachedDecoder
from export.graph.capture import silence_exporter
from export.graph.exporter import translate
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import BatchCache
from service.engine.sessions.key_values import HostKeyValues, cache_parts
from service.engine.sessions.session import onnx_options
from training.models.text_transformer import TextTransformer

Array = npt.NDArray[Any]
CONTEXT, VOCABULARY, WIDTH = 1024, 105, 128
HEAD = LanguageModelHead(layers=4, heads=4, head_size=32)
PARTS = cache_parts(HEAD)
ROWS, CAPACITIES, STEPS = (1, 8, 32), (64, 256, 1024), 20


class GroupQueryDecoder(CachedDecoder):
    """`CachedDecoder` with GroupQueryAttention; it returns whole caches [B, H, P, K] with the new entries."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.lengths_B = inputs[1]
        return super().forward(*inputs)

    def _attend(
        self, attention: nn.MultiheadAttention, x_BSD: Tensor, past_BHPK: list[Tensor], _: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        projected = linear(x_BSD, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
        )
        last_B = (self.lengths_B + (query.shape[2] - 1)).to(torch.int32)
        total = (self.lengths_B.max() + query.shape[2]).to(torch.int32)
        mixed_BSD, keys, values = symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (_flat(query), _flat(key), _flat(value), past_BHPK[0], past_BHPK[1], last_B, total),
            {"num_heads": self.num_heads, "kv_num_heads": self.num_heads},
            dtypes=[torch.float32] * 3,
            shapes=[_flat(query).shape, past_BHPK[0].shape, past_BHPK[1].shape],
            version=1,
        )
        mixed_BHSK = mixed_BSD.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
        return attention.out_proj(_flat(mixed_BHSK)), keys, values


def _flat(x_BHSK: Tensor) -> Tensor:
    return x_BHSK.transpose(1, 2).flatten(2)


class Graph:
    """A session of one thread, with the interface of `Session.run`."""

    def __init__(self, decoder: nn.Module) -> None:
        self.outputs = ["logits", *(f"new_{part}" for part in PARTS)]
        past = torch.randn(5, HEAD.heads, 12, HEAD.head_size)
        ids, lengths = torch.randint(0, VOCABULARY, (5, 4)), torch.arange(5) % 4 + 1
        axes = [{0: "batch", 1: "steps"}, {0: "batch"}, *([{0: "batch", 2: "past"}] * len(PARTS))]
        free = tuple(dict.fromkeys(named, Dim.DYNAMIC) for named in axes)
        inputs = ["ids", "past_lengths", *(f"past_{part}" for part in PARTS)]
        with torch.no_grad(), silence_exporter(), fx_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            examples = (ids, lengths, *([past] * len(PARTS)))
            captured = torch.export.export(decoder, examples, dynamic_shapes=(free,), strict=False)
            program = translate(captured, inputs=inputs, outputs=self.outputs, axes={"inputs": tuple(axes)})
        content = onnx_ir.to_proto(program.model).SerializeToString()
        self.session = ort.InferenceSession(content, onnx_options("cpu", 1), providers=["CPUExecutionProvider"])

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self.outputs, self.session._sess.run(self.outputs, inputs, None), strict=True))


class HostCache(BatchCache):
    values: HostKeyValues


class CopiedCache(HostCache):
    """The caches that the last step returned."""

    def step(self, session: Any, ids: Sequence[int]) -> Array:
        past = {f"past_{part}": cache for part, cache in self.values.parts.items()}
        outputs = session.run({"ids": np.array(ids)[:, None], "past_lengths": self._lengths, **past})
        self.values.parts = {part: outputs[f"new_{part}"] for part in self.values.parts}
        self._lengths = self._lengths + 1
        logits: Array = outputs["logits"][:, 0]
        return logits


class SharedCache(HostCache):
    """Caches that the graph updates in place. The rows stay the same, so their memory is bound once."""

    binding: Any = None

    def step(self, session: Any, ids: Sequence[int]) -> Array:
        if self.binding is None:
            self._bind(session.session.io_binding(), len(ids))
        self.ids_B1[:, 0] = ids
        session.session.run_with_iobinding(self.binding)
        self._lengths += 1
        return self.logits_B1V[:, 0].copy()

    def _bind(self, binding: Any, num_rows: int) -> None:
        self.binding = binding
        self.ids_B1 = np.zeros((num_rows, 1), np.int64)
        self.logits_B1V = np.zeros((num_rows, 1, VOCABULARY), np.float32)
        inputs = {"ids": self.ids_B1, "past_lengths": self._lengths}
        inputs |= {f"past_{part}": cache for part, cache in self.values.parts.items()}
        outputs = {"logits": self.logits_B1V} | {f"new_{part}": cache for part, cache in self.values.parts.items()}
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    model = TextTransformer(vocabulary=VOCABULARY, context=CONTEXT, width=WIDTH, layers=HEAD.layers).eval()
    today, gqa = Graph(CachedDecoder(model)), Graph(GroupQueryDecoder(model))
    print("| rows | capacity | today, µs a row | gqa, µs a row | gqa copied, µs a row |")
    print("| --- " * 5 + "|")
    rng = np.random.default_rng(0)
    for num_rows in ROWS:
        for capacity in CAPACITIES:
            lengths = np.linspace(capacity // 2, capacity - 1, num_rows, dtype=np.int64)
            shape = (num_rows, HEAD.heads, capacity, HEAD.head_size)
            parts = {part: rng.standard_normal(shape, np.float32) for part in PARTS}
            cases = [(today, HostCache), (gqa, SharedCache), (gqa, CopiedCache)]
            caches = [(graph, make_cache(kind, parts, lengths)) for graph, kind in cases]
            spent = [[spent_s(graph, cache, lengths) for graph, cache in caches] for _ in range(rounds + 1)]
            best = np.min(spent[1:], axis=0) / STEPS / num_rows * 1e6
            print(f"| {num_rows} | {capacity:,} | " + " | ".join(f"{figure:.0f}" for figure in best) + " |", flush=True)


def make_cache(kind: type[HostCache], parts: dict[str, Array], lengths: Array) -> HostCache:
    cache = kind(HEAD, parts["key_0"].shape[2])
    cache.num_rows, cache._lengths = len(lengths), lengths.copy()
    cache.values.parts = {part: array.copy() for part, array in parts.items()}
    return cache


def spent_s(graph: Any, cache: BatchCache, lengths: Array) -> float:
    ids = [1] * len(lengths)
    begin = time.process_time()
    for _ in range(STEPS):
        cache._lengths[:] = lengths
        cache.step(graph, ids)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
