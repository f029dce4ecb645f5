"""The ways in which a file goes bad on a disk: every spoilt copy is a function of its number."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

SECTOR, PAGE = 512, 4096
Spoil = Callable[[], bytes]


def truncations(data: bytes, step: int = 16) -> list[tuple[str, Spoil]]:
    """The file cut off at every ``step``-th byte."""
    return [(f"cut at {at}", lambda at=at: data[:at]) for at in range(0, len(data), step)]


def spoilt_copies(
    data: bytes, older: Sequence[bytes], count: int, seed: int = 0
) -> list[tuple[str, Spoil]]:
    """``count`` copies, a third with one flipped bit, the others spoilt in all the other ways.

    Args:
        data: The file.
        older: Earlier versions of it, parts of which may stand in its place after a lost write.
        count: How many copies.
        seed: Of the places.
    """
    others = list(_WAYS)[1:]
    names = [name for other in others for name in ("flip", other)][: 2 * len(others)]

    def copy(number: int) -> tuple[str, Spoil]:
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {number}")
        return f"{name} {number}", lambda: bytes(_WAYS[name](bytearray(data), older, rng))

    return [copy(number) for number in range(count)]


def _flip(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _flips(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    near = rng.randrange(len(data))
    for _ in range(rng.randrange(2, 17)):
        far = rng.randrange(len(data))
        at = far if rng.random() < 0.5 else min(len(data) - 1, near + rng.randrange(16))
        data[at] ^= 1 << rng.randrange(8)
    return data


def _zeroed(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    for start, end in _pages(rng, len(data)):
        data[start:end] = bytes(end - start)
    return data


def _stale(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    old = rng.choice(older)
    for start, end in _pages(rng, len(data)):
        data[start : min(end, len(old))] = old[start:end]
    return data


def _torn(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    size = len(data)
    at = rng.choice([rng.randrange(size), rng.randrange(0, size, SECTOR)])
    old = rng.choice(older)
    begun = [bytes(size - at), old[at:], old[at:size]]
    ended = [bytes(at), old[:at]]
    if rng.random() < 0.6:
        data[at:] = rng.choice(begun)
    else:
        data[:at] = rng.choice(ended)
    return data


def _overwritten(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.choice([1, 2, 4, 8, 64, SECTOR, PAGE]))
    data[at:end] = rng.randbytes(end - at)
    return data


def _moved(data: bytearray, older: Sequence[bytes], rng: random.Random) -> bytearray:
    size = len(data)
    at, to, length = rng.randrange(size), rng.randrange(size), rng.choice([1, 16, SECTOR, PAGE])
    piece = data[at : at + length]
    kind = rng.randrange(3)
    if kind == 0:
        data[to : to + len(piece)] = piece
        return data[:size]
    if kind == 1:
        data[to:to] = piece
    else:
        del data[at : at + length]
    return data


def _pages(rng: random.Random, size: int) -> list[tuple[int, int]]:
    """One run of pages or sectors, or a random half of them all."""
    unit = rng.choice([SECTOR, PAGE])
    total = -(-size // unit)
    if rng.random() < 0.2:
        chosen = [page for page in range(total) if rng.random() < 0.5]
    else:
        first, count = (
            rng.randrange(total),
            rng.choice([1, 1, 1, 2, 4, rng.randrange(1, total + 1)]),
        )
        chosen = list(range(first, min(first + count, total)))
    return [(page * unit, min((page + 1) * unit, size)) for page in chosen]


_WAYS: dict[str, Callable[[bytearray, Sequence[bytes], random.Random], bytearray]] = {
    "flip": _flip,
    "flips": _flips,
    "zeroed": _zeroed,
    "stale": _stale,
    "torn": _torn,
    "overwritten": _overwritten,
    "moved": _moved,
}
