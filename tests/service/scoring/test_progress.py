"""The progress bar adds up what is reported."""

import pytest

from service.scoring.progress import ProgressBar


def test_rows_and_rejects_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("job", visible=True)
    bar.add_planned(10)
    bar.add_planned(5)
    bar.add_done(7, 1)
    bar.add_done(-7, -1)
    bar.add_done(15, 2)
    bar.message("a [bracket]")
    bar.close()
    assert (bar.rows, bar.rejects) == (15, 2)
    displayed = capsys.readouterr().err
    assert "15/15" in displayed
    assert "2 rejected" in displayed
    assert "a [bracket]" in displayed


def test_hidden_bar_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("job", visible=False)
    bar.add_planned(1)
    bar.add_done(1, 0)
    bar.close()
    assert capsys.readouterr() == ("", "")
