import torch
from torch import Generator

from training.augment import forget_words, jitter, noise


def test_shifted_images_are_the_originals_moved_over_black() -> None:
    images = torch.randint(1, 256, (64, 5, 4), dtype=torch.uint8)
    moved = jitter(shift=1)({"images": images}, Generator().manual_seed(0))["images"]
    assert moved.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    seen = set()
    for image, place in zip(moved, padded, strict=True):
        found = [(r, c) for r in range(3) for c in range(3) if torch.equal(image, place[r : r + 5, c : c + 4])]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 9


def test_mirrored_images_are_flipped_and_about_half_of_them() -> None:
    images = torch.randint(0, 256, (200, 4, 4, 3), dtype=torch.uint8)
    made = jitter(shift=0, mirror=True)({"images": images}, Generator().manual_seed(0))["images"]
    flipped = [torch.equal(new, old.flip(1)) for new, old in zip(made, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(made, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 70 < sum(flipped) < 130


def test_other_inputs_pass_and_noise_is_of_the_asked_size() -> None:
    series, lengths = torch.randn(50, 40, 2) * torch.tensor([1.0, 10.0]), torch.full((50,), 40)
    made = noise(0.1)({"series": series, "lengths": lengths}, Generator().manual_seed(0))
    assert made["lengths"] is lengths
    torch.testing.assert_close((made["series"] - series).std((0, 1)), torch.tensor([0.1, 1.0]), rtol=0.1, atol=0)


def test_words_are_forgotten_at_the_asked_share_and_padding_never() -> None:
    ids, lengths = torch.randint(2, 50, (60, 80)), torch.full((60,), 60)
    ids[:, 60:] = 0
    before = ids.clone()
    made = forget_words(0.2)({"ids": ids, "lengths": lengths}, Generator().manual_seed(0))
    assert torch.equal(ids, before), "the data itself is never changed"
    assert made["lengths"] is lengths
    assert made["ids"].dtype == torch.int64
    changed = made["ids"] != ids
    assert (made["ids"][changed] == 1).all()
    assert not changed[:, 60:].any()
    assert 0.17 < changed[:, :60].float().mean() < 0.23
    assert torch.equal(forget_words(0.0)({"ids": ids}, Generator())["ids"], ids)


def test_the_generator_decides() -> None:
    images = {"images": torch.randint(0, 256, (8, 6, 6), dtype=torch.uint8)}
    augment = jitter(shift=2, mirror=True)
    same = [augment(images, Generator().manual_seed(seed))["images"] for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
