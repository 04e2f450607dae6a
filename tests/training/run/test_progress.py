import io

import pytest
import torch
from rich.console import Console

from training.run.progress import Display

POINT = {"step": 500.0, "loss": 0.5, "validation_loss": 0.25, "validation_accuracy": 0.875}


def displayed(*, terminal: bool, visible: bool = True, start: float = 0.0) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, quiet=not visible)
    with Display("digits", start=start, visible=visible, console=console) as display:
        display.show_step(400, 0.4, {"loss": torch.tensor(0.5), "discriminator": torch.tensor(1.5)})
        display.show_evaluation(POINT, 0.5)
        display.refreshed_at = 0.0
        display.show_step(500, 0.5, {"loss": torch.tensor(0.5), "discriminator": torch.tensor(1.5)})
    return file.getvalue()


def test_file_output_has_one_line_per_evaluation() -> None:
    lines = displayed(terminal=False).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("digits: step 500 (50%)  loss 0.5000  validation accuracy 0.8750  ")
    assert lines[0].endswith("s left")


def test_terminal_output_has_losses_metric_rate_and_time_left() -> None:
    text = displayed(terminal=True)
    for part in (
        "digits",
        "50%",
        "loss 0.5000",
        "discriminator 1.5000",
        "validation accuracy 0.8750",
        "steps/s",
        "left",
    ):
        assert part in text


def test_invisible_display_prints_nothing() -> None:
    assert displayed(terminal=False, visible=False) == ""


def test_time_left_counts_from_start_of_this_process() -> None:
    display = Display("digits", start=0.5, visible=False)
    now = display.started_at + 30
    assert display.time_left(0.75, now) == "30 s left"
    assert display.time_left(0.51, now) == "24 min left"
    assert display.time_left(0.5, now) == ""


@pytest.mark.parametrize(
    ("point", "metric"),
    [
        (
            {"step": 1, "loss": 1.0, "validation_nats_per_character": 1.5, "validation_loss": 1.0},
            "nats per character 1.5",
        ),
        ({"step": 1, "loss": 1.0}, ""),
    ],
)
def test_display_shows_metric_of_the_family(point: dict[str, float], metric: str) -> None:
    display = Display("text", start=0.0, visible=False)
    display.show_evaluation(point, 0.5)
    assert metric in display.metric
