"""The registry of input formats."""

from service.scoring.input.rows import Source
from service.scoring.job import Format
from service.scoring.sources.arrays import ArraySource
from service.scoring.sources.arrow import ArrowSource, OrcSource
from service.scoring.sources.images import FolderSource, TarSource
from service.scoring.sources.parquet import ParquetSource
from service.scoring.sources.tables import DeltaSource, IcebergSource
from service.scoring.sources.text.delimited import CsvSource
from service.scoring.sources.text.lines import JsonSource, TextSource
from service.scoring.sources.text.openai import OpenAiSource
from service.scoring.sources.text.ts import TsSource
from service.scoring.sources.webdataset import WebDatasetSource

SOURCES: dict[Format, type[Source]] = {
    "parquet": ParquetSource,
    "csv": CsvSource,
    "jsonl": JsonSource,
    "openai": OpenAiSource,
    "text": TextSource,
    "npy": ArraySource,
    "idx": ArraySource,
    "safetensors": ArraySource,
    "images": FolderSource,
    "tar": TarSource,
    "webdataset": WebDatasetSource,
    "arrow": ArrowSource,
    "orc": OrcSource,
    "ts": TsSource,
    "delta": DeltaSource,
    "iceberg": IcebergSource,
}
