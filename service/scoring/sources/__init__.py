"""The registry of input formats."""

from service.scoring.job import Format
from service.scoring.rows import Source
from service.scoring.sources.arrays import ArraySource
from service.scoring.sources.delimited import CsvSource
from service.scoring.sources.lines import JsonSource, TextSource
from service.scoring.sources.openai import OpenAiSource
from service.scoring.sources.parquet import ParquetSource
from service.scoring.sources.pictures import FolderSource, TarSource

SOURCES: dict[Format, Source] = {
    "parquet": ParquetSource(),
    "csv": CsvSource(),
    "jsonl": JsonSource(),
    "openai": OpenAiSource(),
    "text": TextSource(),
    "npy": ArraySource(),
    "safetensors": ArraySource(),
    "images": FolderSource(),
    "tar": TarSource(),
}
