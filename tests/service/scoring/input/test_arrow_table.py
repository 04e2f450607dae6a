"""Tables and paths as the input of a job."""

from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.input.arrow_table import Inputs, input_paths


@pytest.mark.parametrize("inputs", ["a", Path("a"), ["a"], [Path("a")]])
def test_one_path_or_several_are_paths(inputs: Inputs) -> None:
    with input_paths(inputs) as paths:
        assert paths == ["a"]


def test_a_table_is_a_file_while_the_job_runs_whatever_its_chunks() -> None:
    table = pa.table({"a": list(range(20_000)), "b": pa.array(["x"] * 20_000).dictionary_encode()})
    contents = []
    for chunked in (table, pa.concat_tables([table.slice(0, 5), table.slice(5)])):
        with input_paths(chunked) as [path]:
            contents.append(Path(path).read_bytes())
            with pa.ipc.open_file(path) as file:
                assert file.read_all().equals(table)
        assert not Path(path).exists()
    assert contents[0] == contents[1]
