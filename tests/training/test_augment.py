import torch
from torch import Generator

from training.augment import gaussian_noise, random_shift, word_dropout


def test_random_shift_moves_images_and_fills_with_black() -> None:
    images = torch.randint(1, 256, (64, 5, 4), dtype=torch.uint8)
    moved = random_shift(max_pixels=1)({"images": images}, Generator().manual_seed(0))["images"]
    assert moved.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    seen = set()
    for image, canvas in zip(moved, padded, strict=True):
        found = [(r, c) for r in range(3) for c in range(3) if torch.equal(image, canvas[r : r + 5, c : c + 4])]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 9


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.randint(0, 256, (200, 4, 4, 3), dtype=torch.uint8)
    augmented = random_shift(max_pixels=0, flip=True)({"images": images}, Generator().manual_seed(0))["images"]
    flipped = [torch.equal(new, old.flip(1)) for new, old in zip(augmented, images, strict=True)]
    unchanged = [torch.equal(new, old) for new, old in zip(augmented, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, unchanged, strict=True))
    assert 70 < sum(flipped) < 130


def test_gaussian_noise_has_requested_std_and_keeps_other_inputs() -> None:
    series, lengths = torch.randn(50, 40, 2) * torch.tensor([1.0, 10.0]), torch.full((50,), 40)
    augmented = gaussian_noise(0.1)({"series": series, "lengths": lengths}, Generator().manual_seed(0))
    assert augmented["lengths"] is lengths
    torch.testing.assert_close((augmented["series"] - series).std((0, 1)), torch.tensor([0.1, 1.0]), rtol=0.1, atol=0)


def test_word_dropout_replaces_requested_share_but_no_padding() -> None:
    ids, lengths = torch.randint(2, 50, (60, 80)), torch.full((60,), 60)
    ids[:, 60:] = 0
    before = ids.clone()
    augmented = word_dropout(0.2)({"ids": ids, "lengths": lengths}, Generator().manual_seed(0))
    assert torch.equal(ids, before), "the input tensor must not be modified"
    assert augmented["lengths"] is lengths
    assert augmented["ids"].dtype == torch.int64
    changed = augmented["ids"] != ids
    assert (augmented["ids"][changed] == 1).all()
    assert not changed[:, 60:].any()
    assert 0.17 < changed[:, :60].float().mean() < 0.23
    assert torch.equal(word_dropout(0.0)({"ids": ids}, Generator())["ids"], ids)


def test_augmentation_depends_on_the_generator_alone() -> None:
    images = {"images": torch.randint(0, 256, (8, 6, 6), dtype=torch.uint8)}
    augment = random_shift(max_pixels=2, flip=True)
    same = [augment(images, Generator().manual_seed(seed))["images"] for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
