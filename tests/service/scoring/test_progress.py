"""The bar counts what it is told."""

import pytest

from service.scoring.progress import Bar


def test_rows_and_rejects_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("job", shown=True)
    bar.planned(10)
    bar.planned(5)
    bar.done(7, 1)
    bar.done(-7, -1)
    bar.done(15, 2)
    bar.note("a [bracket]")
    bar.close()
    assert (bar.rows, bar.rejects) == (15, 2)
    shown = capsys.readouterr().err
    assert "15/15" in shown
    assert "2 rejected" in shown
    assert "a [bracket]" in shown


def test_a_bar_that_is_not_shown_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("job", shown=False)
    bar.planned(1)
    bar.done(1, 0)
    bar.close()
    assert capsys.readouterr() == ("", "")
