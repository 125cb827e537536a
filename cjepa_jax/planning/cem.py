"""The cross-entropy method (Rubinstein & Kroese 2004), as published planners with world models use it, and iCEM."""

import dataclasses

import jax
import jax.numpy as jnp

from cjepa_jax.errors import ConfigError
from cjepa_jax.planning.base import Cost, Limit, Plan, bounded, check, check_elites, search


@dataclasses.dataclass(frozen=True)
class CEM:
    """A normal distribution per action is fitted to the best candidates, again and again.

    The defaults are those of stable-worldmodel's solver, which LeWorldModel uses. V-JEPA 2-AC has 400 samples, 10
    elites, 10 iterations, momentum and std_momentum 0.15, keep_mean False, and low, high and std per axis.

    Args:
      samples: candidates per iteration, S.
      elites: number of best candidates that the next distribution is fitted to. Their standard deviation is unbiased.
      iterations: number of fits, I.
      std: of the first distribution, one number or one per dimension of an action.
      momentum, std_momentum: share of the old mean and of the old standard deviation that is kept.
      low, high: limits of the candidates.
      keep_mean: whether the first candidate is the mean itself.
      answer: "mean" of the last distribution, or the "best" candidate of all iterations.
    """

    samples: int = 300
    elites: int = 30
    iterations: int = 30
    std: float | tuple[float, ...] = 1.0
    momentum: float = 0.0
    std_momentum: float = 0.0
    low: Limit = None
    high: Limit = None
    keep_mean: bool = True
    answer: str = "mean"

    def __post_init__(self):
        check(self, samples=2, elites=2, iterations=1, momentum=0.0, std_momentum=0.0)
        check_elites(self)
        if self.answer not in ("mean", "best"):
            raise ConfigError(f"planner.answer is {self.answer!r}: must be mean or best")

    def noise(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Standard normal numbers [S,H,A]."""
        return jax.random.normal(key, shape)

    def candidates(self, mean: jax.Array, std: jax.Array, noise: jax.Array) -> jax.Array:
        """Candidates [S,H,A] of the distribution with `mean` and `std` [H,A]."""
        drawn = bounded(mean + std * noise, self.low, self.high)
        return drawn.at[0].set(mean) if self.keep_mean else drawn

    def fit(self, mean, std, candidates, costs):
        """The next mean and standard deviation [H,A], and the elites [elites,H,A] from the best on."""
        chosen = candidates[jax.lax.top_k(-costs, self.elites)[1]]
        new = chosen.mean(0), chosen.std(0, ddof=1)
        shares = (self.momentum, self.std_momentum)
        mixed = (share * old + (1 - share) * fresh for old, fresh, share in zip((mean, std), new, shares, strict=True))
        return *mixed, chosen

    def start(self, mean: jax.Array) -> tuple:
        """Mean, standard deviation, the best candidate of all and its cost."""
        std = jnp.broadcast_to(jnp.asarray(self.std, mean.dtype), mean.shape)
        return mean, std, mean, jnp.asarray(jnp.inf, mean.dtype)

    def ask(self, state: tuple, key: jax.Array, step: jax.Array) -> jax.Array:
        """See base.Sampler."""
        mean, std = state[:2]
        return self.candidates(mean, std, self.noise(key, (self.samples, *mean.shape)))

    def tell(self, state: tuple, candidates: jax.Array, costs: jax.Array) -> tuple[tuple, jax.Array]:
        """See base.Sampler."""
        mean, std, best, lowest = state
        least = jnp.argmin(costs)
        best = jnp.where(costs[least] < lowest, candidates[least], best)
        mean, std, _ = self.fit(mean, std, candidates, costs)
        return (mean, std, best, jnp.minimum(lowest, costs[least])), costs[least]

    def result(self, state: tuple, costs: jax.Array) -> Plan:
        """See base.Sampler."""
        mean, std, best = state[:3]
        return Plan(mean if self.answer == "mean" else best, mean, std, costs)

    def plan(self, cost: Cost, key: jax.Array, mean: jax.Array) -> Plan:
        """Searches around `mean` [H,A]."""
        return search(self, cost, key, mean)


@dataclasses.dataclass(frozen=True)
class ICEM(CEM):
    """iCEM (Pinneri et al. 2020): noise that is correlated in time, elites that stay, and the best action of all.

    The number of samples does not decay, so that all iterations have one shape. `mean` is the first candidate in the
    last iteration only.

    Args:
      colour: exponent of the noise's power spectrum 1 / f^colour over the horizon. 0 is white.
      kept: share of the elites that compete again in the next iteration.
    """

    samples: int = 128
    elites: int = 10
    iterations: int = 4
    std: float | tuple[float, ...] = 0.5
    momentum: float = 0.1
    std_momentum: float = 0.1
    low: Limit = -1.0
    high: Limit = 1.0
    keep_mean: bool = False
    answer: str = "best"
    colour: float = 2.0
    kept: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        check(self, colour=0.0, kept=0.0)
        if self.kept > 1:
            raise ConfigError(f"planner.kept is {self.kept!r}: must be at most 1")

    def noise(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Coloured noise [S,H,A] of variance 1."""
        return coloured(key, shape, self.colour)

    @property
    def _kept(self) -> int:
        return round(self.kept * self.elites)

    def start(self, mean: jax.Array) -> tuple:
        """Mean, standard deviation, the elites that are kept (at least the best), and their costs."""
        held = max(self._kept, 1)
        # Infinite costs are never among the best: the first iteration has no elites.
        return *super().start(mean)[:2], jnp.zeros((held, *mean.shape)), jnp.full(held, jnp.inf)

    def ask(self, state: tuple, key: jax.Array, step: jax.Array) -> jax.Array:
        """See base.Sampler."""
        drawn = super().ask(state, key, step)
        return drawn.at[0].set(jnp.where(step == self.iterations - 1, state[0], drawn[0]))

    def tell(self, state: tuple, candidates: jax.Array, costs: jax.Array) -> tuple[tuple, jax.Array]:
        """See base.Sampler."""
        mean, std, elites, values = state
        candidates, costs = jnp.concatenate([candidates, elites]), jnp.concatenate([costs, values])
        order = jax.lax.top_k(-costs, len(values))[1]
        chosen = costs if self._kept else costs.at[self.samples :].set(jnp.inf)
        mean, std, _ = self.fit(mean, std, candidates, chosen)
        return (mean, std, candidates[order], costs[order]), costs[order[0]]

    def result(self, state: tuple, costs: jax.Array) -> Plan:
        """See base.Sampler."""
        mean, std, elites = state[:3]
        return Plan(mean if self.answer == "mean" else elites[0], mean, std, costs)


def coloured(key: jax.Array, shape: tuple[int, int, int], colour: float) -> jax.Array:
    """Gaussian noise [S,H,A] with power spectrum 1 / f^colour over H and variance 1 (Timmer & Koenig 1995)."""
    samples, steps, size = shape
    frequencies = jnp.fft.rfftfreq(steps).at[0].set(1 / steps)
    scale = frequencies ** (-colour / 2)
    count = len(scale)
    single = (jnp.arange(count) == 0) | ((jnp.arange(count) == count - 1) & (steps % 2 == 0))  # real components
    draws = jax.random.normal(key, (2, samples, size, count))
    real = draws[0] * jnp.where(single, 2**0.5, 1) * scale
    spectrum = real + 1j * jnp.where(single, 0, draws[1] * scale)
    variance = (scale**2 * jnp.where(single, 2, 4)).sum() / steps**2
    return jnp.moveaxis(jnp.fft.irfft(spectrum, steps) / jnp.sqrt(variance), -1, 1)
