"""The structured rows of a table have every value of a category and both ends of every column."""

import numpy as np

from export.gates.coverage.domain import choose_domain
from export.gates.coverage.table import table_rows
from tests.export.tiny_sources import make_candidate


def test_rows_have_all_categories_and_the_ends_of_the_columns() -> None:
    candidate = make_candidate("tiny-table")
    domain = choose_domain(candidate.source, candidate.manifest)
    rows = list(table_rows(candidate.source, candidate.manifest, domain))
    assert {int(row.inputs["categories"][0]) for row in rows} == {0, 1, 2, 3}
    numbers = np.stack([row.inputs["numbers"] for row in rows])
    assert (numbers[:, 0].min(), numbers[:, 0].max()) == (0, 120)
    assert (numbers[:, 1].min(), numbers[:, 1].max()) == (domain["numbers"].low, domain["numbers"].high)
    assert "column 'colour' is 'black'" in {row.name for row in rows}
    largest = np.abs(candidate.source.examples.inputs["numbers"]).max()
    assert all(row.is_extreme == (np.abs(row.inputs["numbers"]).max() > largest) for row in rows)
