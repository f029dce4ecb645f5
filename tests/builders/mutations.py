"""Spoiling bytes at random, each time in another of the ways that files go bad."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

_TEXT_TOKENS = [
    *(b"", b"\0", b"\n", b"\r", b",", b";", b"\t", b'"', b"'", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"9" * 400, b"1" + b"0" * 30, b"0x10"),
    *(b"null", b"true", b"{}", b"[]", b"[" * 3000, b'{"a":' * 3000, b"\xed\xa0\x80", b"../../x"),
    *(b"/etc/passwd", b"\x1b[31m", b"\xe2\x80\xae", b"A" * 200_000, b"1/0", b"-3", b"1:2:3:4"),
]
_NUMBERS = [0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1]
_VALUES: list[Any] = [
    *(None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**40, "", "x", "1/0", "nan"),
    *([], {}, [1], [None, None], {"a": 1}, "a/b", "..", "\0", "\n", [[]], "\ud800"),
]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, cuts, doubled or swapped blocks, absurd numbers."""
    spoilt = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(spoilt) + 1)
        length = rng.choice([1, 2, 8, 64, 1024])
        kind = rng.randrange(7)
        if kind == 0 and at < len(spoilt):
            spoilt[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del spoilt[at:]
        elif kind == 2:
            del spoilt[at : at + length]
        elif kind == 3:
            other = rng.randrange(len(spoilt) + 1)
            spoilt[at:at] = spoilt[other : other + length]
        elif kind == 4:
            for place in range(at, min(at + length, len(spoilt))):
                spoilt[place] = rng.randrange(256)
        elif kind == 5 and at + 4 <= len(spoilt):
            order = rng.choice("<>")
            struct.pack_into(f"{order}I", spoilt, at, rng.choice(_NUMBERS))
        else:
            spoilt[at : at + rng.choice([0, length])] = bytes(rng.randrange(0, 1) for _ in range(8))
        if not spoilt:
            break
    return bytes(spoilt)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """As bytes, or a word replaced by one that parsers stumble over."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(spoilt) + 1)
        end = at
        while end < len(spoilt) and chr(spoilt[end]).isalnum():
            end += 1
        spoilt[at : end if rng.random() < 0.7 else at] = rng.choice(_TEXT_TOKENS)
    return bytes(spoilt)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """As text, or well-formed JSON with a value somewhere that does not belong there."""
    if rng.random() < 0.4:
        return mutate_text(data, rng)
    return json.dumps(spoil_value(json.loads(data), rng)).encode()


def spoil_value(value: Any, rng: random.Random) -> Any:
    """The value with something in it missing, renamed or replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(6)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {str(rng.choice(_VALUES)) if k == key else k: v for k, v in value.items()}
        return {k: spoil_value(v, rng) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at]
        return [spoil_value(v, rng) if i == at else v for i, v in enumerate(value)]
    return rng.choice(_VALUES)
