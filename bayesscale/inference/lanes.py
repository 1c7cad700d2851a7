"""NUTS in lanes: many small posteriors at once, none waiting for another.

A lane is one chain of one posterior. Vectorised samplers usually advance all chains by one *draw*, so every chain waits for
the largest tree; here each step advances every lane by one *leapfrog*, and a lane whose tree ends accepts its proposal and
starts its next trajectory in the same step. A chunk of steps is one compiled scan that emits what each lane finished; the
host collects draws, pools step sizes and metrics over the chains of a posterior, and refills lanes between chunks.

The trajectory is the iterative form of multinomial NUTS: subtrees grow leaf by leaf, and the no-U-turn criterion
(Betancourt 2017, generalised: momenta against the summed momentum) is checked for every balanced subtree through stored
checkpoints (Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554), then for the whole tree with biased progressive sampling.

Coordinates are whitened: u = centre + W x, and the metric is the identity in x. Arrays are (coord, lane), lanes minor, and
the code is written for whole arrays rather than mapped over lanes, so that the compiler sees few, wide operations. Weights
of points are kept relative to the start of their trajectory, w = exp(H_0 - H), which saves most logarithms and exponentials.

A lane's randomness comes from its own key, its salt and the number of chunks since it was filled, and a posterior always
enters at a chunk boundary, so its draws do not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesscale.inference.randomness import normals, random_words
from bayesscale.logarithms import keep
from bayesscale.model import Target
from bayesscale.programs import Program, storable

DIVERGENCE = 1000.0
"""Energy error beyond which a trajectory is called divergent."""
LARGEST_GAIN = 600.0
"""Points better than their trajectory's start by more than this many nats weigh alike: far from the posterior only."""
UNROLLED = 16
"""Sums over up to this many coordinates are written out, so that they fuse with what uses them."""

type Point = tuple[jax.Array, jax.Array, jax.Array]
"""Position and gradient (coord, lane), and log density (lane,)."""
type End = tuple[jax.Array, jax.Array, jax.Array]
"""Position, momentum and gradient, (coord, lane) each."""


@storable
class Lanes(NamedTuple):
    """State of all lanes. Vectors are (coord, lane), checkpoints (slot, coord, lane), the rest (lane,)."""

    key: jax.Array  # (2, lane) words of the unit's key
    salt: jax.Array  # tells a unit's chains and phases apart
    chunk: jax.Array  # chunks since the lane was filled: the counter of its random stream
    fresh: jax.Array  # just filled: where it stands has not been evaluated yet
    drawn: jax.Array  # trajectories finished since the phase began
    tip: End  # where the next leapfrog starts
    left: End  # ends of the tree
    right: End
    proposal: Point  # of the tree
    weight: jax.Array
    r_sum: jax.Array
    energy: jax.Array  # at the trajectory's start
    depth: jax.Array
    forward: jax.Array
    leaf: jax.Array  # of the subtree under construction, as are the next six
    sub_proposal: Point
    sub_weight: jax.Array
    sub_r_sum: jax.Array
    turned: jax.Array
    checkpoint_r: jax.Array
    checkpoint_sum: jax.Array
    accept_sum: jax.Array
    leapfrogs: jax.Array
    log_step: jax.Array  # dual averaging of the log step size (Hoffman & Gelman 2014)
    log_step_mean: jax.Array
    error_mean: jax.Array
    shrink_to: jax.Array


@storable
class Task(NamedTuple):
    """What the lanes work on: whitening, data, how many trajectories each owes and whether it is adapting."""

    centre: jax.Array  # (coord, lane)
    whiten: jax.Array  # (coord, coord, lane), or (coord, lane) for a diagonal
    columns: dict[str, jax.Array]  # (..., lane)
    wanted: jax.Array
    adapting: jax.Array
    target_accept: jax.Array
    max_depth: jax.Array


class Noise(NamedTuple):
    """Random numbers of one step: standard normals (coord, lane), uniforms (lane,) and coins (lane,)."""

    momentum: jax.Array
    leaf: jax.Array
    tree: jax.Array
    coins: jax.Array


@storable
class Emitted(NamedTuple):
    """What one step hands to the host, per lane; meaningful where `done`."""

    done: jax.Array
    x: jax.Array
    log_density: jax.Array
    energy: jax.Array
    diverged: jax.Array
    leapfrogs: jax.Array
    accept: jax.Array
    saturated: jax.Array


type Density = Callable[[jax.Array, Task], jax.Array]
"""Log density (lane,) of whitened positions (coord, lane)."""


def choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Select a whole tree of arrays by one flag per lane."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner product over the coordinate axis, the last but one."""
    if a.shape[-2] > UNROLLED:
        return jnp.sum(a * b, axis=-2)
    return reduce(add, (a[..., i, :] * b[..., i, :] for i in range(a.shape[-2])))


def is_turning(r_left: jax.Array, r_right: jax.Array, r_sum: jax.Array) -> jax.Array:
    """Generalised U-turn: an end's momentum no longer points along the summed momentum (ends counted half)."""
    inner = r_sum - 0.5 * (r_left + r_right)
    return (dot(r_left, inner) <= 0) | (dot(r_right, inner) <= 0)


def checkpoint_range(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last checkpoint whose balanced subtree ends at this (odd) leaf; the last is where an even leaf is stored."""
    last = jax.lax.population_count(leaf >> 1)
    trailing = jax.lax.population_count(leaf & ~(leaf + 1))  # number of trailing ones
    return last - trailing + 1, last


def draw_noise(lanes: Lanes, steps: int) -> Noise:
    """Draw a chunk's random numbers, step axis first. Coins are the low bits of the first momentum's words."""
    size, count = len(lanes.r_sum), lanes.r_sum.shape[-1]
    counter = jnp.arange(steps * (size + 2), dtype=jnp.uint32).reshape(steps, size + 2, 1)
    begin = lanes.chunk.astype(jnp.uint32) * np.uint32(steps * (size + 2))
    words = random_words(lanes.key, lanes.salt, jnp.broadcast_to(counter, (*counter.shape[:2], count)) + begin)
    dtype = lanes.r_sum.dtype
    uniforms = (words[:, size:].astype(dtype) + 0.5) * 2.0**-32
    momentum = normals(words[:, :size], jnp.float32)
    return Noise(momentum, uniforms[:, 0], uniforms[:, 1], words[:, 0] & 1 == 1)


def adapt_step(lanes: Lanes, accept: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One dual-averaging update after a trajectory: log step size, its average, and the averaged error.

    At half the usual gain: phases are short, and the average of a step size that swings far accepts more than it was asked to.
    """
    t = lanes.drawn + 1.0
    error_mean = lanes.error_mean + (target - accept - lanes.error_mean) / (t + 10.0)
    log_step = lanes.shrink_to - 10.0 * jnp.sqrt(t) * error_mean
    share = 1.0 / (jnp.sqrt(t) * jnp.sqrt(jnp.sqrt(t)))  # t^(-3/4)
    return log_step, share * log_step + (1.0 - share) * lanes.log_step_mean, error_mean


def value_and_gradient(density: Density, x: jax.Array, task: Task) -> tuple[jax.Array, jax.Array]:
    """Log density (lane,) and its gradient (coord, lane); lanes do not see each other."""
    value, pull = jax.vjp(lambda x: density(x, task), x)
    return value, pull(jnp.ones_like(value))[0]


class Leaf(NamedTuple):
    """A point one leapfrog on: where, its log density, its weight, and whether the energy there is hopeless."""

    tip: End
    value: jax.Array
    weight: jax.Array
    diverged: jax.Array


class Subtree(NamedTuple):
    """The subtree under construction with its newest leaf, and the checkpoints of its balanced parts."""

    proposal: Point
    weight: jax.Array
    r_sum: jax.Array
    turned: jax.Array
    checkpoint_r: jax.Array
    checkpoint_sum: jax.Array


class Tree(NamedTuple):
    """The tree after the leaf: grown by the subtree where that is whole, and what ended with it."""

    proposal: Point
    left: End
    right: End
    weight: jax.Array
    r_sum: jax.Array
    depth: jax.Array
    sub_done: jax.Array
    done: jax.Array
    saturated: jax.Array


def leapfrog(lanes: Lanes, task: Task, density: Density) -> Leaf:
    """Take one step from the tip; a fresh lane stays where it is, and its density becomes known."""
    x, r, g = lanes.tip
    step = jnp.exp(lanes.log_step) * jnp.where(lanes.fresh, 0.0, jnp.where(lanes.forward, 1.0, -1.0))
    half = r + 0.5 * step * g
    x = x + step * half
    value, g = value_and_gradient(density, x, task)
    r = half + 0.5 * step * g
    gain = lanes.energy - (0.5 * dot(r, r) - value)
    diverged = ~(gain > -DIVERGENCE)
    return Leaf((x, r, g), value, jnp.where(diverged, 0.0, jnp.exp(jnp.minimum(gain, LARGEST_GAIN))), diverged)


def grow_subtree(lanes: Lanes, leaf: Leaf, noise: Noise) -> Subtree:
    """Let the leaf join its subtree; the criterion is checked for every balanced subtree that ends with it."""
    (x, r, g), first_leaf = leaf.tip, lanes.leaf == 0
    weight = jnp.where(first_leaf, 0.0, lanes.sub_weight) + leaf.weight
    take = (noise.leaf * weight < leaf.weight) | lanes.fresh
    r_sum = jnp.where(first_leaf, r, lanes.sub_r_sum + r)
    first, last = checkpoint_range(lanes.leaf)
    slots, even = jnp.arange(lanes.checkpoint_r.shape[0])[:, None], lanes.leaf % 2 == 0
    store = (even & (slots == last))[:, None, :]
    checkpoint_r = jnp.where(store, r, lanes.checkpoint_r)
    checkpoint_sum = jnp.where(store, r_sum, lanes.checkpoint_sum)
    ends_here = ~even & (slots >= first) & (slots <= last)
    between = r_sum - checkpoint_sum + checkpoint_r
    turned = lanes.turned | jnp.any(ends_here & is_turning(checkpoint_r, r[None], between), axis=0)
    proposal = choose(take, (x, g, leaf.value), lanes.sub_proposal)
    return Subtree(proposal, weight, r_sum, turned, checkpoint_r, checkpoint_sum)


def grow_tree(lanes: Lanes, leaf: Leaf, subtree: Subtree, noise: Noise, task: Task) -> Tree:
    """Let a whole subtree join the tree, by biased progressive sampling; the tree of a fresh lane ends with its one leaf."""
    broken = subtree.turned | leaf.diverged
    sub_done = broken | (lanes.leaf + 1 == 1 << lanes.depth)
    whole = sub_done & ~broken
    take = (whole & (noise.tree * lanes.weight < subtree.weight)) | lanes.fresh
    sub_done, whole, take = keep((sub_done, whole, take))
    left = choose(whole & ~lanes.forward, leaf.tip, lanes.left)
    right = choose(whole & lanes.forward, leaf.tip, lanes.right)
    r_sum = jnp.where(whole, lanes.r_sum + subtree.r_sum, lanes.r_sum)
    turning, depth = keep(is_turning(left[1], right[1], r_sum)), lanes.depth + sub_done
    deep = depth >= task.max_depth
    return Tree(
        proposal=choose(take, subtree.proposal, lanes.proposal),
        left=left,
        right=right,
        weight=jnp.where(whole, lanes.weight + subtree.weight, lanes.weight),
        r_sum=r_sum,
        depth=depth,
        sub_done=sub_done,
        done=lanes.fresh | (sub_done & (broken | turning | deep)),
        saturated=whole & deep & ~turning,
    )


def advance(lanes: Lanes, noise: Noise, task: Task, *, density: Density) -> tuple[Lanes, Emitted]:
    """Take one leapfrog; finish the subtree, the tree and the draw where they end with it.

    A fresh lane's next trajectory starts with its density known, so that the density is compiled at one place only.
    """
    leaf = leapfrog(lanes, task, density)
    subtree = grow_subtree(lanes, leaf, noise)
    tree = grow_tree(lanes, leaf, subtree, noise, task)
    accept_sum, leapfrogs = lanes.accept_sum + jnp.minimum(1.0, leaf.weight), lanes.leapfrogs + 1
    counts = tree.done & ~lanes.fresh
    adapting = counts & task.adapting & (lanes.drawn < task.wanted)
    step_state = (lanes.log_step, lanes.log_step_mean, lanes.error_mean)
    step_state = choose(adapting, adapt_step(lanes, accept_sum / leapfrogs, task.target_accept), step_state)

    # next leaf, next subtree or next trajectory
    done, proposal, momentum = tree.done, tree.proposal, noise.momentum.astype(leaf.value.dtype)
    forward = jnp.where(tree.sub_done, noise.coins, lanes.forward)
    start = (proposal[0], momentum, proposal[1])
    onward = choose(tree.sub_done, choose(forward, tree.right, tree.left), leaf.tip)
    moved = Lanes(
        key=lanes.key,
        salt=lanes.salt,
        chunk=lanes.chunk,
        fresh=jnp.zeros_like(lanes.fresh),
        drawn=lanes.drawn + counts,
        tip=choose(done, start, onward),
        left=choose(done, start, tree.left),
        right=choose(done, start, tree.right),
        proposal=proposal,
        weight=jnp.where(done, 1.0, tree.weight),
        r_sum=jnp.where(done, momentum, tree.r_sum),
        energy=jnp.where(done, 0.5 * dot(momentum, momentum) - proposal[2], lanes.energy),
        depth=jnp.where(done, 0, tree.depth),
        forward=forward,
        leaf=jnp.where(tree.sub_done, 0, lanes.leaf + 1),
        sub_proposal=subtree.proposal,
        sub_weight=subtree.weight,
        sub_r_sum=subtree.r_sum,
        turned=subtree.turned & ~tree.sub_done,
        checkpoint_r=subtree.checkpoint_r,
        checkpoint_sum=subtree.checkpoint_sum,
        accept_sum=jnp.where(done, 0.0, accept_sum),
        leapfrogs=jnp.where(done, 0, leapfrogs),
        log_step=step_state[0],
        log_step_mean=step_state[1],
        error_mean=step_state[2],
        shrink_to=lanes.shrink_to,
    )
    emitted = Emitted(
        done=counts & (lanes.drawn < task.wanted),
        x=proposal[0],
        log_density=proposal[2],
        energy=lanes.energy,
        diverged=leaf.diverged,
        leapfrogs=leapfrogs,
        accept=accept_sum / leapfrogs,
        saturated=tree.saturated,
    )
    return moved, emitted


def run_steps(lanes: Lanes, task: Task, *, density: Density, steps: int) -> tuple[Lanes, Emitted]:
    """Advance all lanes by `steps` leapfrogs; what lanes do beyond their last trajectory is not emitted."""

    def one_step(lanes: Lanes, noise: Noise) -> tuple[Lanes, Emitted]:
        return advance(lanes, noise, task, density=density)

    lanes, emitted = jax.lax.scan(one_step, lanes, draw_noise(lanes, steps))
    return lanes._replace(chunk=lanes.chunk + 1), emitted


def fill_lanes(key: jax.Array, salt: jax.Array, x: jax.Array, log_step: jax.Array, *, deepest: int) -> Lanes:
    """Set up fresh lanes at positions x (coord, lane)."""
    zero, nothing = jnp.zeros_like(log_step), jnp.zeros_like(x)
    flag, count = jnp.zeros(zero.shape, bool), jnp.zeros(zero.shape, jnp.int32)
    blank = jnp.zeros((max(deepest - 1, 1), *x.shape), x.dtype)
    end, point = (x, nothing, nothing), (x, nothing, zero)
    return Lanes(
        key=key, salt=salt, chunk=count, fresh=~flag, drawn=count, tip=end, left=end, right=end, proposal=point, weight=zero,
        r_sum=nothing, energy=zero, depth=count, forward=flag, leaf=count, sub_proposal=point, sub_weight=zero,
        sub_r_sum=nothing, turned=flag, checkpoint_r=blank, checkpoint_sum=blank, accept_sum=zero, leapfrogs=count,
        log_step=log_step, log_step_mean=log_step, error_mean=zero, shrink_to=log_step + math.log(2.0),
    )  # fmt: skip


def refill_lanes(
    lanes: Lanes,
    changed: jax.Array,
    key: jax.Array,
    salt: jax.Array,
    x: jax.Array,
    log_step: jax.Array,
    *,
    deepest: int,
) -> Lanes:
    """Set up the lanes that changed, and leave the others."""
    return choose(changed, fill_lanes(key, salt, x, log_step, deepest=deepest), lanes)


def whitened_density(target: Target, x: jax.Array, task: Task) -> jax.Array:
    """log density at u = centre + W x, W a matrix or, for large posteriors, its diagonal."""
    if task.whiten.ndim == 2:
        u = task.centre + task.whiten * x
    elif len(x) <= UNROLLED:
        u = reduce(add, (task.whiten[:, j] * x[j] for j in range(len(x))), task.centre)
    else:
        u = task.centre + jnp.sum(task.whiten * x[None], axis=1)
    u = keep(u)
    if target.broadcasts:
        return target.density(u, task.columns)
    return jax.vmap(target.density, in_axes=-1)(u, task.columns)


class Kernel(NamedTuple):
    """The functions of a density: fill all lanes, fill those that changed, and run them all for a chunk."""

    fill: Callable[..., Lanes]
    refill: Callable[..., Lanes]
    run: Callable[..., tuple[Lanes, Emitted]]


@lru_cache(maxsize=8)
def fillers(deepest: int) -> tuple[Callable[..., Lanes], Callable[..., Lanes]]:
    """Compile what needs no density, once for all of them."""
    return Program(partial(fill_lanes, deepest=deepest)), Program(partial(refill_lanes, deepest=deepest), donate=(0,))


WIDE = {"xla_cpu_prefer_vector_width": 512}
"""Compiler options for the kernel: where a CPU has vectors this wide, half of them is what XLA would take."""


def build_kernel(density: Density, *, steps: int, deepest: int) -> Kernel:
    """Compile the kernel for a density of whitened coordinates."""
    run = Program(partial(run_steps, density=density, steps=steps), donate=(0,), options=WIDE)
    return Kernel(*fillers(deepest), run)


@lru_cache(maxsize=128)
def kernel_of(target: Target, steps: int, deepest: int) -> Kernel:
    """Return the kernel of a target, compiled once per shape of its data."""
    return build_kernel(partial(whitened_density, target), steps=steps, deepest=deepest)
