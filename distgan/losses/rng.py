"""Seeds of named random streams: pure functions of (seed, name, update, group), never of a worker or of history.

A resume therefore needs no random state beyond the run's seed and counters, and any number of workers draws the same
numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np

# The package's own streams and the numbers that they have had since the first version. They are part of every run:
# never renumber one. All other names, new ones of the package included, are hashed.
_NUMBERS = {
    "initial weights": 0,
    "discriminator latents": 1,  # latents and layers of the generator in a discriminator update
    "generator latents": 2,  # the same in a generator update
    "flips": 3,
    "label noise": 4,
    "label flips": 5,
    "interpolation": 6,
    "discriminator layers": 7,
    "frozen discriminator layers": 8,  # in a generator update
    "sample latents": 9,
    "evaluation latents": 10,
    "evaluation labels": 11,
    "dequantization": 12,
    # 13 was another stream: do not use it again.
    "augmented reals": 14,
    "augmented fakes": 15,
    "augmented generator fakes": 16,
}


def derive_seed(seed: int, name: str, update: int = 0, group: int = 0) -> int:
    """The 63-bit seed of the stream `name` for one group of one update."""
    state = np.random.SeedSequence([seed, _number(name), update, group]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def _number(name: str) -> int:
    """The stream's number: from the table, else a hash of at least 2^63, the same on every machine."""
    if name in _NUMBERS:
        return _NUMBERS[name]
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") | 1 << 63
