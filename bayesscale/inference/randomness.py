"""Random numbers from counters: the same word for the same key, salt and counter, wherever and whenever it is asked for."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
ROUNDS = 13


def random_words(key: jax.Array, salt: jax.Array, counter: jax.Array) -> jax.Array:
    """Hash (key (2, lane), salt (lane,), counter (..., lane)) to 32 random bits each: Threefry-2x32 with 13 rounds.

    The counter-based generator of Salmon et al. 2011 (SC11, doi:10.1145/2063384.2063405), which passes every test of
    TestU01 from 13 rounds on. jax's own runs 20 rounds in a loop that is not fused, key by key, and took longer than the
    gradient.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter + keys[0], salt.astype(jnp.uint32) + keys[1]
    y = jnp.broadcast_to(y, x.shape)
    for i in range(ROUNDS):
        turn = ROTATIONS[i % 8]
        x = x + y
        y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
        if i % 4 == 3:
            j = i // 4 + 1
            x, y = x + keys[j % 3], y + keys[(j + 1) % 3] + np.uint32(j)
    return x


def normals(words: jax.Array, dtype: Any) -> jax.Array:
    """Standard normals from the upper 23 bits of each word, in single precision: their own rounding is far below any Monte
    Carlo error, and the inverse error function is the dearest part of a normal draw."""
    centred = ((words >> 9).astype(jnp.int32) - (1 << 22)).astype(jnp.float32) + 0.5
    return (math.sqrt(2.0) * jax.lax.erf_inv(centred * 2.0**-22)).astype(dtype)
