import numpy as np
import pytest

from training.data import shapes


def test_draw_balances_classes_and_depends_on_seed_alone() -> None:
    images, targets = shapes.draw(200, seed=1)
    assert images.shape == (200, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.bincount(targets).tolist() == [20] * 10
    assert np.array_equal(images, shapes.draw(200, seed=1)[0])
    assert not np.array_equal(images, shapes.draw(200, seed=2)[0])


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_outline_is_bounded_and_differs_from_other_classes(name: str) -> None:
    y, x = np.mgrid[-1.4:1.4:57j, -1.4:1.4:57j].astype(np.float32)
    masks = {other: outline(x, y) > 0 for other, outline in shapes.SHAPES.items()}
    assert 0.02 < masks[name].mean() < 0.6
    assert not masks[name][np.hypot(x, y) > 1.35].any()
    for other, mask in masks.items():
        assert other == name or (mask != masks[name]).mean() > 0.03, f"{name} looks like {other}"


def test_shape_is_lighter_than_background() -> None:
    images, targets = shapes.draw(300, seed=3)
    discs = images[targets == list(shapes.SHAPES).index("disc")].mean(-1)
    highest, typical = np.percentile(discs, 97, axis=(1, 2)), np.median(discs, axis=(1, 2))
    assert (highest - typical > 25).mean() > 0.9
