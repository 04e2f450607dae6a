from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.checkpoint import RunError, read_snapshot
from training.recipe import Recipe, Split
from training.run.loop import Loop, Plan, learning_rate_scale, update_ema
from training.run.progress import Display
from training.workers import Workers

WORKERS = Workers(device=torch.device("cpu"))
PLAN = Plan(recipe="tiny", data=None, sha256={}, steps=30, minutes=None, seed=0, device="cpu", threads=1, workers=1)


def loop_of(recipe: Recipe, folder: Path, plan: Plan = PLAN) -> Loop:
    return Loop(recipe=recipe, data=recipe.load(None), plan=plan, folder=folder, workers=WORKERS)


def run(loop: Loop, stop_at: int = 10**9) -> bool:
    with Display("tiny", start=0, visible=False) as display:
        return loop.run(display, lambda: loop.progress.step >= stop_at)


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    return loop.best_model().state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", RECIPES)
def test_resumed_run_ends_with_weights_of_uninterrupted_run(name: str, tmp_path: Path) -> None:
    uninterrupted = loop_of(RECIPES[name], tmp_path / "uninterrupted")
    uninterrupted.folder.mkdir()
    assert run(uninterrupted)
    for stop_at in (1, 7, 23):
        resumed = loop_of(RECIPES[name], tmp_path / "resumed")
        resumed.folder.mkdir(exist_ok=True)
        if stop_at > 1:
            resumed.resume()
        # The result must not depend on the global random state.
        torch.manual_seed(stop_at)
        assert not run(resumed, stop_at)
        assert resumed.progress.step == stop_at
    resumed = loop_of(RECIPES[name], tmp_path / "resumed")
    resumed.resume()
    assert run(resumed)
    assert equal(weights(uninterrupted), weights(resumed))
    assert uninterrupted.progress.curves == resumed.progress.curves
    assert uninterrupted.progress.best_step == resumed.progress.best_step


def test_seed_determines_weights(tmp_path: Path) -> None:
    loops = [loop_of(RECIPES["tiny-images"], tmp_path, replace(PLAN, seed=seed)) for seed in (0, 0, 1)]
    for loop in loops:
        run(loop)
    assert equal(weights(loops[0]), weights(loops[1]))
    assert not equal(weights(loops[0]), weights(loops[2]))


def test_resuming_finished_run_changes_nothing(tmp_path: Path) -> None:
    loop = loop_of(RECIPES["tiny-images"], tmp_path)
    run(loop)
    resumed_loop = loop_of(RECIPES["tiny-images"], tmp_path)
    resumed_loop.resume()
    assert run(resumed_loop)
    assert resumed_loop.progress.step == loop.progress.step
    assert equal(weights(loop), weights(resumed_loop))


def test_snapshot_names_fields_of_progress(tmp_path: Path) -> None:
    run(loop_of(RECIPES["tiny-baseline"], tmp_path), 3)
    fields = {"step", "seconds", "finished", "best", "best_step", "stale", "losses", "curves"}
    assert set(read_snapshot(tmp_path)[1]["progress"]) == fields


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 31}, {"sha256": {"file": "f" * 64}}, {"threads": 2}])
def test_resume_refuses_changed_plan(change: dict[str, object], tmp_path: Path) -> None:
    run(loop_of(RECIPES["tiny-baseline"], tmp_path), 3)
    other = loop_of(RECIPES["tiny-baseline"], tmp_path, replace(PLAN, **change))
    with pytest.raises(RunError, match=f"{next(iter(change))} was .*, is "):
        other.resume()


def test_run_stops_after_patience_and_returns_best_weights(tmp_path: Path) -> None:
    recipe = replace(RECIPES["tiny-baseline"], learning_rate=0.3, evaluations=100, patience=5, warmup=0.0)
    loop = loop_of(recipe, tmp_path, replace(PLAN, steps=400))
    run(loop)
    points = loop.progress.curves
    rank = [(point["validation_accuracy"], -point["validation_loss"]) for point in points]
    best = (
        points[int(np.argmax([accuracy for accuracy, _ in rank]))]
        if len(set(rank)) == 1
        else points[rank.index(max(rank))]
    )
    assert loop.progress.best_step == best["step"]
    assert loop.progress.step == best["step"] + 5 * 4
    assert loop.progress.step < 400
    accuracy = (
        loop.best_model()(torch.from_numpy(loop.data.validation.inputs["images"])).argmax(-1).numpy()
        == loop.data.validation.targets
    ).mean()
    assert accuracy == pytest.approx(best["validation_accuracy"])


def test_run_stops_after_minutes(tmp_path: Path) -> None:
    loop = loop_of(RECIPES["tiny-baseline"], tmp_path, replace(PLAN, steps=None, minutes=0.005))
    assert run(loop)
    assert loop.progress.seconds >= 0.3
    assert loop.progress.step > 3


def test_non_finite_loss_ends_run(tmp_path: Path) -> None:
    loop = loop_of(replace(RECIPES["tiny-baseline"], learning_rate=1e30), tmp_path)
    with pytest.raises(RunError, match=r"tiny-baseline: the loss is (nan|inf) at step \d+; a lower learning_rate"):
        run(loop)
    assert loop.progress.step < 30


def test_batch_size_must_be_divisible_by_workers(tmp_path: Path) -> None:
    recipe = RECIPES["tiny-baseline"]
    with pytest.raises(ValueError, match="a batch of 16 cannot be divided among 3 workers"):
        Loop(
            recipe=recipe,
            data=recipe.load(None),
            plan=PLAN,
            folder=tmp_path,
            workers=Workers(device=torch.device("cpu"), count=3),
        )


def test_run_trains_with_fewer_items_than_batch_size(tmp_path: Path) -> None:
    recipe = RECIPES["tiny-baseline"]
    data = recipe.load(None)
    few = Split(inputs={"images": data.train.inputs["images"][:5]}, targets=data.train.targets[:5])
    loop = Loop(recipe=recipe, data=replace(data, train=few), plan=PLAN, folder=tmp_path, workers=WORKERS)
    assert run(loop)
    assert loop.progress.step == 30


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_items_longer_than_max_steps_are_refused_before_training(part: str, tmp_path: Path) -> None:
    data = RECIPES["tiny-series"].load(None)
    splits = {}
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        lengths = np.minimum(split.inputs["lengths"], 8)
        lengths[3] = 9 if name == part else 8
        splits[name] = replace(split, inputs={**split.inputs, "lengths": lengths})
    ragged = replace(data, **splits)
    recipe = replace(RECIPES["tiny-series"], max_steps=9)
    assert Loop(recipe=recipe, data=ragged, plan=PLAN, folder=tmp_path, workers=WORKERS)
    with pytest.raises(ValueError, match=f"an item of the {part} split has 9 steps, max_steps is 8: raise max_steps"):
        Loop(recipe=replace(recipe, max_steps=8), data=ragged, plan=PLAN, folder=tmp_path, workers=WORKERS)


def test_windows_longer_than_max_steps_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an item of the train split has 12 steps, max_steps is 11: raise max_steps"):
        loop_of(replace(RECIPES["tiny-language"], max_steps=11), tmp_path)


def test_learning_rate_scale_is_warmup_then_cosine_decay() -> None:
    assert learning_rate_scale(0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate_scale(0.1, 0.1) == pytest.approx(1.0)
    assert learning_rate_scale(0.55, 0.1) == pytest.approx(0.505)
    assert learning_rate_scale(1.0, 0.1) == pytest.approx(0.01)
    assert learning_rate_scale(0.0, 0.0) == 1.0


def test_update_ema_moves_weights_and_statistics() -> None:
    average, model = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(10.0)
    update_ema(average, model, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [2.5, 2.5]
    assert average.weight.requires_grad


def test_update_ema_moves_tied_weights_once() -> None:
    average, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    average.tied, model.tied = average.weight, model.weight
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(model.weight)
    update_ema(average, model, 0.75)
    assert average.weight.unique().tolist() == [0.25]
