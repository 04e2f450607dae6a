"""Read a prompt chunk by chunk, without the chunks that an earlier prompt has read."""

from service.engine.generation.kv_cache import PREFILL_CHUNK, RowCache
from service.engine.generation.logits import Logits
from service.engine.generation.prefix_cache import PrefixCache, chunk_keys
from service.engine.generation.sequence import SequenceState
from service.engine.metrics import GenerationCounters


def read_chunk(row: SequenceState, cache: RowCache, prefixes: PrefixCache, counters: GenerationCounters) -> Logits:
    """Compute the next chunk that is not in the prefix cache and return its logits [steps, vocabulary].

    A row that needs the logits of its whole prompt computes every chunk.
    """
    manifest = row.session.manifest
    needs_all = row.params.prompt_logprobs
    keys = [] if needs_all else chunk_keys(f"{manifest.name}/{manifest.version}", row.prompt)
    if not cache.length:
        counters.prompt_tokens += row.prompt.size
        counters.prefix_queried_tokens += len(keys) * PREFILL_CHUNK
    before = cache.length
    for key in keys[before // PREFILL_CHUNK :]:
        chunk = prefixes.get(key)
        if chunk is None:
            break
        cache.append(chunk)
    counters.prefix_hit_tokens += cache.length - before
    first = cache.length
    logits_SV = cache.read_chunk(row.session, row.prompt)
    number = first // PREFILL_CHUNK
    if number < len(keys):
        prefixes.put(keys[number], cache.chunk(first))
    if needs_all:
        row.add_prompt_logprobs(logits_SV, first)
    return logits_SV
