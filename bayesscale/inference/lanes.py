"""NUTS in lanes: many small posteriors at once, none waiting for another.

A lane is one chain of one posterior. Vectorised samplers usually advance all chains by one *draw*, so every chain waits for
the largest tree; here each step advances every lane by one *leapfrog*, and a lane whose tree ends accepts its proposal and
starts its next trajectory in the same step. A chunk of steps is one compiled scan that emits what each lane finished; the
host collects draws, pools step sizes and metrics over the chains of a posterior, and refills lanes between chunks.

The trajectory is the iterative form of multinomial NUTS: subtrees grow leaf by leaf, and the no-U-turn criterion
(Betancourt 2017, generalised: momenta against the summed momentum) is checked for every balanced subtree through stored
checkpoints (Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554), then for the whole tree with biased progressive sampling.

Coordinates are whitened: u = centre + W x, and the metric is the identity in x. Arrays are (coord, lane), lanes minor.
A lane's randomness comes from its own key and its own step counter, and a posterior always enters at a chunk boundary, so
its draws do not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from bayesscale.model import Target

DIVERGENCE = 1000.0
"""Energy error beyond which a trajectory is called divergent."""


class Lane(NamedTuple):
    """State of one lane. Vectors are (coord,), checkpoints (max_depth, coord), the rest scalars."""

    key: jax.Array
    step: jax.Array  # leapfrogs taken since the lane was filled: the counter of its random stream
    drawn: jax.Array  # trajectories finished since the phase began
    # tip of the trajectory: where the next leapfrog starts
    x: jax.Array
    r: jax.Array
    g: jax.Array
    # ends of the tree
    left: tuple[jax.Array, jax.Array, jax.Array]
    right: tuple[jax.Array, jax.Array, jax.Array]
    # proposal of the tree: position, log density, gradient
    proposal: tuple[jax.Array, jax.Array, jax.Array]
    log_weight: jax.Array
    r_sum: jax.Array
    energy: jax.Array  # at the trajectory's start
    depth: jax.Array
    forward: jax.Array
    # subtree under construction
    leaf: jax.Array
    sub_proposal: tuple[jax.Array, jax.Array, jax.Array]
    sub_log_weight: jax.Array
    sub_r_sum: jax.Array
    turned: jax.Array
    checkpoint_r: jax.Array
    checkpoint_sum: jax.Array
    accept_sum: jax.Array
    leapfrogs: jax.Array
    # dual averaging of the log step size (Hoffman & Gelman 2014)
    log_step: jax.Array
    log_step_mean: jax.Array
    error_mean: jax.Array
    shrink_to: jax.Array


class Task(NamedTuple):
    """What a lane works on: its whitening, its data, how many trajectories it owes and whether it is adapting."""

    centre: jax.Array
    whiten: jax.Array
    columns: dict[str, jax.Array]
    wanted: jax.Array
    adapting: jax.Array
    target_accept: jax.Array


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


def choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Select a whole tree of arrays by one flag."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def is_turning(r_left: jax.Array, r_right: jax.Array, r_sum: jax.Array) -> jax.Array:
    """Generalised U-turn: an end's momentum no longer points along the summed momentum (ends counted half)."""
    inner = r_sum - 0.5 * (r_left + r_right)
    return (jnp.sum(r_left * inner, axis=-1) <= 0) | (jnp.sum(r_right * inner, axis=-1) <= 0)


def checkpoint_range(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last checkpoint whose balanced subtree ends at this (odd) leaf; the last is where an even leaf is stored."""
    last = jax.lax.population_count(leaf >> 1)
    trailing = jax.lax.population_count(leaf & ~(leaf + 1))  # number of trailing ones
    return last - trailing + 1, last


def uniform_words(key: jax.Array, count: int) -> jax.Array:
    """Uniforms inside (0, 1) from one 32-bit word each: half the random words that 64-bit uniforms cost."""
    return (jax.random.bits(key, (count,), jnp.uint32).astype(float) + 0.5) * 2.0**-32


def begin_trajectory(lane: Lane, momentum: jax.Array, forward: jax.Array) -> Lane:
    """Start a tree of one point at the current proposal."""
    x, value, g = lane.proposal
    zero, end = jnp.zeros_like(lane.log_weight), (x, momentum, g)
    return lane._replace(
        x=x,
        r=momentum,
        g=g,
        left=end,
        right=end,
        log_weight=zero,
        r_sum=momentum,
        energy=0.5 * jnp.sum(momentum**2) - value,
        depth=jnp.zeros_like(lane.depth),
        leaf=jnp.zeros_like(lane.leaf),
        forward=forward,
        turned=jnp.zeros_like(lane.turned),
        accept_sum=zero,
        leapfrogs=jnp.zeros_like(lane.leapfrogs),
    )


def adapt_step(lane: Lane, accept: jax.Array, target: jax.Array) -> Lane:
    """One dual-averaging update of the log step size after a trajectory."""
    t = lane.drawn + 1.0
    error_mean = lane.error_mean + (target - accept - lane.error_mean) / (t + 10.0)
    log_step = lane.shrink_to - jnp.sqrt(t) / 0.05 * error_mean
    share = t**-0.75
    mean = share * log_step + (1.0 - share) * lane.log_step_mean
    return lane._replace(log_step=log_step, log_step_mean=mean, error_mean=error_mean)


def advance(lane: Lane, task: Task, *, density: Density, max_depth: int) -> tuple[Lane, Emitted]:
    """Take one leapfrog; finish the subtree, the tree and the draw if they end with it."""
    value_and_gradient = jax.value_and_grad(density)
    uniforms = uniform_words(jax.random.fold_in(lane.key, lane.step), 4 + lane.x.shape[0])
    uniform_leaf, uniform_tree, uniform_side, uniform_next = uniforms[:4]
    momentum = ndtri(uniforms[4:])

    # leapfrog
    step_size = jnp.exp(lane.log_step) * jnp.where(lane.forward, 1.0, -1.0)
    half = lane.r + 0.5 * step_size * lane.g
    x = lane.x + step_size * half
    value, g = value_and_gradient(x, task)
    r = half + 0.5 * step_size * g
    gain = lane.energy - (0.5 * jnp.sum(r**2) - value)  # log weight of the new point
    gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
    diverged = gain < -DIVERGENCE
    accept_sum = lane.accept_sum + jnp.minimum(1.0, jnp.exp(gain))

    # the leaf joins its subtree
    fresh = lane.leaf == 0
    sub_log_weight = jnp.where(fresh, gain, jnp.logaddexp(lane.sub_log_weight, gain))
    take_leaf = fresh | (jnp.log(uniform_leaf) < gain - sub_log_weight)
    sub_proposal = choose(take_leaf, (x, value, g), lane.sub_proposal)
    sub_r_sum = jnp.where(fresh, r, lane.sub_r_sum + r)

    # balanced subtrees that end here
    first, last = checkpoint_range(lane.leaf)
    slots, even = jnp.arange(lane.checkpoint_r.shape[0]), lane.leaf % 2 == 0
    store = (even & (slots == last))[:, None]
    checkpoint_r = jnp.where(store, r, lane.checkpoint_r)
    checkpoint_sum = jnp.where(store, sub_r_sum, lane.checkpoint_sum)
    ends_here = ~even & (slots >= first) & (slots <= last)
    between = sub_r_sum - checkpoint_sum + checkpoint_r
    turned = lane.turned | jnp.any(ends_here & is_turning(checkpoint_r, r, between))

    # the subtree joins the tree
    broken = turned | diverged
    sub_done = broken | (lane.leaf + 1 == 1 << lane.depth)
    whole = sub_done & ~broken
    take_subtree = whole & (jnp.log(uniform_tree) < sub_log_weight - lane.log_weight)
    proposal = choose(take_subtree, sub_proposal, lane.proposal)
    tip = (x, r, g)
    left, right = choose(whole & ~lane.forward, tip, lane.left), choose(whole & lane.forward, tip, lane.right)
    log_weight = jnp.where(whole, jnp.logaddexp(lane.log_weight, sub_log_weight), lane.log_weight)
    r_sum = jnp.where(whole, lane.r_sum + sub_r_sum, lane.r_sum)
    depth = lane.depth + sub_done
    tree_done = sub_done & (broken | is_turning(left[1], right[1], r_sum) | (depth >= max_depth))

    # next leaf, next subtree or next trajectory
    forward = jnp.where(sub_done, uniform_side < 0.5, lane.forward)
    side = choose(forward, right, left)
    next_x, next_r, next_g = choose(sub_done, side, tip)
    grown = lane._replace(
        step=lane.step + 1,
        x=next_x,
        r=next_r,
        g=next_g,
        left=left,
        right=right,
        proposal=proposal,
        log_weight=log_weight,
        r_sum=r_sum,
        depth=depth,
        forward=forward,
        leaf=jnp.where(sub_done, 0, lane.leaf + 1),
        sub_proposal=sub_proposal,
        sub_log_weight=sub_log_weight,
        sub_r_sum=sub_r_sum,
        turned=turned & ~sub_done,
        checkpoint_r=checkpoint_r,
        checkpoint_sum=checkpoint_sum,
        accept_sum=accept_sum,
        leapfrogs=lane.leapfrogs + 1,
    )
    accept = accept_sum / grown.leapfrogs
    adapted = choose(task.adapting, adapt_step(grown, accept, task.target_accept), grown)
    restarted = begin_trajectory(adapted._replace(drawn=lane.drawn + 1), momentum, uniform_next < 0.5)
    emitted = Emitted(
        done=tree_done,
        x=proposal[0],
        log_density=proposal[1],
        energy=lane.energy,
        diverged=diverged,
        leapfrogs=grown.leapfrogs,
        accept=accept,
        saturated=whole & (depth >= max_depth) & ~is_turning(left[1], right[1], r_sum),
    )
    return choose(tree_done, restarted, grown), emitted


def fill_lane(
    key: jax.Array, x: jax.Array, log_step: jax.Array, task: Task, *, density: Density, max_depth: int
) -> Lane:
    """Set up a lane at position x."""
    value, g = jax.value_and_grad(density)(x, task)
    scalar, flag, count = jnp.zeros((), x.dtype), jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    point, start = (x, x, x), (x, value, g)
    checkpoints = jnp.zeros((max_depth, x.shape[0]), x.dtype)
    blank = Lane(
        key, count, scalar, x, x, g, point, point, start, scalar, x, scalar, count, flag, count, start, scalar, x, flag,
        checkpoints, checkpoints, scalar, scalar, log_step, log_step, scalar, log_step + math.log(2.0),
    )  # fmt: skip
    momentum = jax.random.normal(jax.random.fold_in(key, 0x7FFFFFFF), x.shape, x.dtype)
    return begin_trajectory(blank, momentum, flag)


def whitened_density(target: Target, x: jax.Array, task: Task) -> jax.Array:
    """log density at u = centre + W x, W a matrix or, for large posteriors, its diagonal."""
    # A product and a sum rather than a matrix product: it stays elementwise over lanes.
    step = task.whiten * x if task.whiten.ndim == 1 else jnp.sum(task.whiten * x[None, :], axis=1)
    return target.density(task.centre + step, task.columns)


def run_steps(lanes: Lane, tasks: Task, *, density: Density, steps: int, max_depth: int) -> tuple[Lane, Emitted]:
    """Advance all lanes by `steps` leapfrogs; lanes that owe nothing more stand still."""
    advance_all = jax.vmap(partial(advance, density=density, max_depth=max_depth), in_axes=-1, out_axes=-1)

    def one_step(lanes: Lane, _: None) -> tuple[Lane, Emitted]:
        active = lanes.drawn < tasks.wanted
        moved, emitted = advance_all(lanes, tasks)
        return choose(active, moved, lanes), emitted._replace(done=emitted.done & active)

    return jax.lax.scan(one_step, lanes, None, length=steps)


class Kernel(NamedTuple):
    """The two compiled functions of a density: fill lanes, and run them for a chunk."""

    fill: Callable[..., Lane]
    run: Callable[..., tuple[Lane, Emitted]]


def build_kernel(density: Density, *, steps: int, max_depth: int) -> Kernel:
    """Compile the kernel for a density of whitened coordinates."""
    fill = jax.vmap(partial(fill_lane, density=density, max_depth=max_depth), in_axes=-1, out_axes=-1)
    run = partial(run_steps, density=density, steps=steps, max_depth=max_depth)
    return Kernel(jax.jit(fill), jax.jit(run, donate_argnums=0))


@lru_cache(maxsize=128)
def kernel_of(target: Target, steps: int, max_depth: int) -> Kernel:
    """Return the kernel of a target, compiled once per shape of its data."""
    return build_kernel(partial(whitened_density, target), steps=steps, max_depth=max_depth)
