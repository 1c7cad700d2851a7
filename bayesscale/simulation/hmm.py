"""An exact Bayesian in-context learner: a mixture of hidden Markov models that share states and emissions.

Hidden states are pairs (entity, property), as in GINC; the hypotheses differ in how properties follow each other. A
sequence is a row of examples, each of `length` tokens, sampled from one HMM m that restarts at every delimiter, so that
examples are independent given m. Before the last token x of example n the predictor knows everything to its left:

    w_j(n)  ∝  rho_j exp( sum_{i<n} log p_j(example_i) + log p_j(prefix_n) )
    p(x)    =  sum_j w_j(n) p_j(x | prefix_n)

with every p_j from the forward algorithm. n counts complete examples already seen. Only the last token is scored.

The parameters of the in-context law are then measured, not assumed:

* rho is given;
* P[m, j] is the probability that hypothesis j alone gives to the right last token when the data come from m: the
  arithmetic mean is what a mean probability tends to, the geometric mean what a mean NLL tends to;
* evidence[m, j] = E log p_m(example) - E log p_j(example), nats per whole example;
* K[m, j] = evidence[m, j] / log(P[m, m] / P[m, j]), with the geometric P: evidence per example in units of the evidence
  in its scored token. So K = 1 + (evidence in the prefix) / (evidence in the last token). It is exactly 1 where the
  prefix tells nothing, which is the case for two-token examples because all HMMs share the start distribution.

Even so the law is an approximation to this learner. Evidence varies from sequence to sequence, so the mean curve is
flatter than a logistic; the prefix counts at zero shots already; and a learner that averages hypotheses hedges, so that
its mean NLL between two of them lies below what their geometric means give (a mean probability has no such gap).
Evidence adds up over many examples: run it in float64. Tokens are drawn by numpy, so the data do not depend on the
version of JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd


class HMMs(NamedTuple):
    """M hypotheses over S states and V tokens, as probabilities."""

    start: NDArray[np.float64]  # (S,) shared
    transition: NDArray[np.float64]  # (M, S, S) from row to column
    emission: NDArray[np.float64]  # (S, V) shared


class Predictions(NamedTuple):
    """What the exact predictor says along one sequence of examples."""

    log_correct: Array  # (shots,) log posterior predictive probability of the last token
    hit: Array  # (shots,) whether that token was the most probable
    log_weights: Array  # (shots, M) posterior over hypotheses just before the last token
    log_last: Array  # (shots, M) log p_j(last token | prefix) under each hypothesis alone
    log_prefix: Array  # (shots, M) log p_j(prefix)


class Measured(NamedTuple):
    """Parameters of the law as realised, (M, M): rows generate the data, columns explain them."""

    P_mean: NDArray[np.float64]
    P_geometric: NDArray[np.float64]
    evidence: NDArray[np.float64]
    K: NDArray[np.float64]


def draw_hmms(
    seed: int,
    hypotheses: int = 3,
    *,
    entities: int = 4,
    properties: int = 5,
    vocabulary: int = 12,
    contrast: float = 0.5,
    temperature: float = 0.5,
    persistence: float = 0.9,
    noise: float = 0.1,
) -> HMMs:
    """A small GINC-like world.

    Entities persist; properties move by a random row-softmax matrix, of which a share `contrast` is an HMM's own and
    the rest common to all (small contrast: little evidence per example, slow curves). Each state owns one token,
    emitted except for a share `noise` spread over the vocabulary; a small vocabulary makes states share tokens.
    """
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((hypotheses + 1, properties, properties)) / temperature
    rows = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    property_moves = (1.0 - contrast) * rows[0] + contrast * rows[1:]
    entity_moves = persistence * np.eye(entities) + (1.0 - persistence) / entities
    states = entities * properties
    transition = np.stack([np.kron(entity_moves, moves) for moves in property_moves])
    token = np.argsort(rng.random(states)) % vocabulary
    emission = (1.0 - noise) * np.eye(vocabulary)[token] + noise / vocabulary
    return HMMs(np.full(states, 1.0 / states), transition, emission)


def sample_examples(rng: np.random.Generator, hmms: HMMs, m: int, shape: tuple[int, ...], length: int) -> NDArray:
    """Examples from hypothesis m: tokens (*shape, length), each example started afresh."""
    state = _pick(rng, np.broadcast_to(hmms.start, (*shape, hmms.start.size)))
    tokens = []
    for _ in range(length):
        tokens.append(_pick(rng, hmms.emission[state]))
        state = _pick(rng, hmms.transition[m][state])
    return np.stack(tokens, axis=-1)


def _pick(rng: np.random.Generator, probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Inverse-cdf draw over the last axis; rounding may leave the last cdf value under 1, hence the slice."""
    cdf = np.cumsum(probability, axis=-1)[..., :-1]
    return (rng.random(cdf.shape[:-1])[..., None] > cdf).sum(-1)


def forward(log_start: Array, log_transition: Array, log_emission: Array, tokens: Array) -> tuple[Array, Array]:
    """Log probability of `tokens`, and of every next token given them, by the forward algorithm in log space."""

    def step(ahead: Array, token: Array) -> tuple[Array, None]:
        # ahead: log p(tokens so far, next state); the token is weighed in, then the state moves on
        return _log_matmul(ahead + log_emission[:, token], log_transition), None

    ahead, _ = lax.scan(step, log_start, tokens)
    evidence = logsumexp(ahead)
    return evidence, _log_matmul(ahead, log_emission) - evidence


def _log_matmul(log_row: Array, log_matrix: Array) -> Array:
    return logsumexp(log_row[:, None] + log_matrix, axis=0)


def exact_bayes(hmms: HMMs, rho: ArrayLike, tokens: ArrayLike) -> Predictions:
    """The exact predictor along one sequence; `tokens` is (shots, length), one example per row."""
    tokens = jnp.asarray(tokens)
    start, transition, emission = (jnp.log(jnp.asarray(table)) for table in hmms)
    over_hypotheses = jax.vmap(forward, in_axes=(None, 0, None, None))
    over_examples = jax.vmap(over_hypotheses, in_axes=(None, None, None, 0))
    log_prefix, log_next = over_examples(start, transition, emission, tokens[:, :-1])
    log_last = jnp.take_along_axis(log_next, tokens[:, -1][:, None, None], axis=-1)[..., 0]
    log_example = log_prefix + log_last
    seen = jnp.cumsum(log_example, axis=0) - log_example
    log_weights = jax.nn.log_softmax(jnp.log(jnp.asarray(rho)) + seen + log_prefix, axis=-1)
    log_predictive = logsumexp(log_weights[..., None] + log_next, axis=1)
    log_correct = jnp.take_along_axis(log_predictive, tokens[:, -1:], axis=-1)[:, 0]
    hit = jnp.argmax(log_predictive, axis=-1) == tokens[:, -1]
    return Predictions(log_correct, hit, log_weights, log_last, log_prefix)


@jax.jit
def exact_bayes_many(hmms: HMMs, rho: ArrayLike, tokens: ArrayLike) -> Predictions:
    """`exact_bayes` over a leading axis of sequences, some hundreds at a time so that memory stays small."""
    return lax.map(lambda sequence: exact_bayes(hmms, rho, sequence), tokens, batch_size=256)


def off_diagonal(table: NDArray[np.float64], fill: float = np.nan) -> NDArray[np.float64]:
    """The table with its diagonal, a task against itself, replaced."""
    return np.where(np.eye(len(table), dtype=bool), fill, table)


def measure(by_task: list[Predictions]) -> Measured:
    """P, evidence and K from each task's predictions. They depend on no prior. K is NaN on the diagonal."""
    log_last = np.stack([np.asarray(task.log_last).mean((0, 1)) for task in by_task])
    log_example = np.stack([np.asarray(task.log_last + task.log_prefix).mean((0, 1)) for task in by_task])
    P_mean = np.stack([np.exp(np.asarray(task.log_last)).mean((0, 1)) for task in by_task])
    evidence = np.diag(log_example)[:, None] - log_example
    with np.errstate(invalid="ignore", divide="ignore"):
        K = off_diagonal(evidence / (np.diag(log_last)[:, None] - log_last))
    return Measured(P_mean, np.exp(log_last), evidence, K)


def rivals(measured: Measured) -> NDArray[np.int64]:
    """For each task the wrong hypothesis that is given up last: the least evidence per example."""
    return np.argmin(off_diagonal(measured.evidence, np.inf), axis=1)


def curve_table(model: str, task: str, predictions: Predictions) -> pd.DataFrame:
    """One row per shot: means over sequences of the NLL and the probability, with standard errors, and top-1 counts."""
    import pandas as pd

    nll = -np.asarray(predictions.log_correct)
    sequences, shots = nll.shape
    columns = {"nll": nll, "prob": np.exp(-nll)}
    table = {"model": model, "task": task, "shots": np.arange(shots)}
    for name, values in columns.items():
        table[name] = values.mean(0)
        table[f"{name}_se"] = values.std(0, ddof=1) / np.sqrt(sequences)
    return pd.DataFrame({**table, "correct": np.asarray(predictions.hit).sum(0), "trials": sequences})


def parameter_table(model: str, tasks: list[str], rho: ArrayLike, measured: Measured) -> pd.DataFrame:
    """One row per curve: rho, gamma = P[m, m], beta and K against the nearest rival, then rows of P, evidence and K.

    gamma, beta and P are geometric means, the ones a mean NLL sees; gamma_mean and beta_mean are arithmetic.
    A task without a rival has NaN for beta and K.
    """
    import pandas as pd

    rival = rivals(measured)
    pair = np.arange(len(tasks)), rival
    columns = {
        "model": model,
        "task": tasks,
        "rho": np.asarray(rho, dtype=np.float64),
        "K": measured.K[pair],
        "gamma": np.diag(measured.P_geometric),
        "beta": off_diagonal(measured.P_geometric)[pair],
        "gamma_mean": np.diag(measured.P_mean),
        "beta_mean": off_diagonal(measured.P_mean)[pair],
        "rival": [tasks[j] for j in rival],
    }
    for name, table in (("P", measured.P_geometric), ("evidence", measured.evidence), ("K", measured.K)):
        columns |= {f"{name}_{task}": table[:, j] for j, task in enumerate(tasks)}
    return pd.DataFrame(columns)


def simulate_hmm(
    seed: int,
    hmms: HMMs,
    rho: ArrayLike,
    *,
    model: str = "exact",
    sequences: int = 300,
    shots: int = 64,
    length: int = 4,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of the exact Bayesian for every task, and the law's parameters: (table, truth).

    The same `seed` draws the same tokens whatever rho is, so that two priors differ by the prior alone.
    """
    import pandas as pd

    names = [f"hmm{m}" for m in range(len(hmms.transition))]
    draws = [np.random.default_rng([seed, m]) for m in range(len(names))]
    tokens = [sample_examples(rng, hmms, m, (sequences, shots), length) for m, rng in enumerate(draws)]
    by_task = [exact_bayes_many(hmms, np.asarray(rho, dtype=np.float64), examples) for examples in tokens]
    tables = [curve_table(model, task, predictions) for task, predictions in zip(names, by_task, strict=True)]
    return pd.concat(tables, ignore_index=True), parameter_table(model, names, rho, measure(by_task))
