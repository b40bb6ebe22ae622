"""Effects: differences, means and slopes of networks' numbers over seeds, and their intervals.

Networks differ in how much their seeds differ: frozen ones at E = 1 by 0.6 points, at E = 8 by
0.06. So an interval that takes their variances as equal counts alone only where a network has a
single seed.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

ENOUGH = 6  # degrees of freedom of a pooled variance that may stand for a network of one seed
FACTOR = 2  # two neighbours of a grid that lie further apart do not say where a curve crosses


@dataclass(frozen=True, eq=False)
class Cell:
    """A number of one network: its mean over the seeds and what is known of its spread."""

    mean: float
    n: int  # seeds
    variance: float = np.nan  # over the seeds; nan for one seed
    values: dict = field(default_factory=dict)  # by seed, if they are known
    pooled: tuple = (np.nan, 0)  # of other networks: their variance over seeds, degrees of freedom
    answers: dict = field(default_factory=dict)  # by seed: 0 or 100 for each test image
    images: str = ""  # the data set of `answers`


def of_seeds(values, **more):
    """The `Effect` of one network's values by seed, a Series or a dictionary."""
    values = dict(values)
    each, n = list(values.values()), len(values)
    variance = np.var(each, ddof=1) if n > 1 else np.nan
    return Effect({Cell(float(np.mean(each)), n, variance, values, **more): 1.0})


def of_mean(mean, n, variance):
    """The `Effect` of a network of which only the mean and variance over n seeds are known."""
    return Effect({Cell(mean, n, variance): 1.0})


class Effect:
    """A linear combination of cells, `{cell: weight}`, made by arithmetic: `learnable - frozen`.

    The interval is the wider of two. One is Student's, of the combination within each seed that all
    networks have: it holds whatever their variances, and however runs of one seed are related. If
    the networks share less than two seeds, it is Welch's, where a network of one seed takes the
    variance of other networks. The other gives every network that variance. Where a network has one
    seed, both show no more than a direction.

    If the networks share several seeds and all these have answers, the interval covers other test
    images, too: the half-width of an interval over the images is added in quadrature. Without cells
    the interval is unknown, and so is each sum with it: all is nan and n is 0.
    """

    def __init__(self, weights):
        self.weights = weights

    def __add__(self, other):
        if not (self.weights and other.weights):
            return Effect({})
        weights = dict(self.weights)
        for cell, weight in other.weights.items():
            weights[cell] = weights.get(cell, 0) + weight
        return Effect(weights)

    def __radd__(self, _):
        return self  # `sum` starts with 0

    def __mul__(self, factor):
        return Effect({cell: factor * weight for cell, weight in self.weights.items()})

    def __sub__(self, other):
        return self + other * -1

    @cached_property
    def shared(self):
        """The seeds that all cells have; empty if these are below two."""
        seeds = [set(cell.values) for cell in self.weights]
        shared = sorted(set.intersection(*seeds)) if seeds else []
        return shared if len(shared) > 1 else []

    @cached_property
    def paired(self):
        """The combination within each of the shared seeds."""
        return [sum(weight * cell.values[seed] for cell, weight in self.weights.items())
                for seed in self.shared]

    @cached_property
    def value(self):
        """Of the seeds that all cells have if they are two or more, else of all seeds."""
        if self.paired:
            return float(np.mean(self.paired))
        total = sum(weight * cell.mean for cell, weight in self.weights.items())
        return float(total) if self.weights else np.nan

    @property
    def n(self):
        """The number of seeds behind it: those that all cells have."""
        if any(cell.values for cell in self.weights):
            return max(1, len(self.paired))
        return min((cell.n for cell in self.weights), default=0)

    def interval(self, confidence=0.95):
        """Its two ends; nan if nothing tells how much seeds differ."""
        halves = [_half(parts, confidence) for parts in (self._own, self._pooled) if parts]
        half = np.hypot(max(halves, default=np.nan), _half(self._over_images, confidence))
        return self.value - half, self.value + half

    @property
    def borrowed(self):
        """Whether the interval takes the spread of other networks: a network has one seed, or the
        own seeds agree better than theirs."""
        own, pooled = (_half(parts, 0.95) if parts else 0.0 for parts in (self._own, self._pooled))
        return pooled > own or any(cell.n == 1 for cell in self.weights)

    @property
    def covers_images(self):
        """Whether the interval covers other test images, too."""
        return bool(self._over_images)

    @property
    def low(self):
        return self.interval()[0]

    @property
    def high(self):
        return self.interval()[1]

    # Each of the next three is a variance as a list of `(variance, degrees of freedom)`, which is
    # empty where it is unknown.

    @cached_property
    def _own(self):
        """Of the networks' own seeds."""
        if self.paired:
            return [(np.var(self.paired, ddof=1) / self.n, self.n - 1)]
        own = {cell: (cell.variance, cell.n - 1) for cell in self.weights if cell.n > 1}
        return self._of_estimates(own)

    @cached_property
    def _pooled(self):
        """Of other networks' seeds."""
        return self._of_estimates({})

    def _of_estimates(self, own):
        """Of each cell's `own` estimate, if it has one, or that of other networks. Cells with the
        same estimate share its degrees of freedom."""
        factors, estimates = {}, {}
        for cell, weight in self.weights.items():
            key = cell if cell in own else cell.pooled
            estimates[key] = own.get(cell, cell.pooled)
            factors[key] = factors.get(key, 0) + weight ** 2 / (len(self.paired) or cell.n)
            if cell not in own and cell.pooled[1] < ENOUGH:
                return []
        return [(estimates[key][0] * factor, estimates[key][1]) for key, factor in factors.items()]

    @cached_property
    def _over_images(self):
        """Of the choice of test images, for each data set: what the networks differ in on an image
        with every seed. What seeds differ in on an image is in the interval over seeds already.

        The variance component of images in a random model of seeds and images, and 0 if negative.
        """
        if not self.shared or any({*self.shared} - {*cell.answers} for cell in self.weights):
            return []
        combined = {}
        for cell, weight in self.weights.items():
            answers = weight * np.array([cell.answers[seed] for seed in self.shared], float)
            combined[cell.images] = combined.get(cell.images, 0) + answers
        parts = []
        for each in combined.values():  # [seeds, images]
            seeds, images = each.shape
            rest = each - each.mean(0) - each.mean(1, keepdims=True) + each.mean()
            noise = np.square(rest).sum() / ((seeds - 1) * (images - 1))
            variance = each.mean(0).var(ddof=1) - noise / seeds
            parts.append((max(variance, 0.0) / images, images - 1))
        return parts


def _half(parts, confidence):
    """The half-width of the interval of a sum of `(variance, freedom)` parts, by Satterthwaite."""
    total = sum(variance for variance, _ in parts)
    if not total:
        return 0.0
    freedom = total ** 2 / sum(variance ** 2 / freedom for variance, freedom in parts)
    return stdtrit(freedom, (1 + confidence) / 2) * total ** 0.5


def average(effects):
    """The mean of several effects. Raises LookupError if there is none."""
    effects = list(effects)
    if not effects:
        raise LookupError("no network to average over")
    return sum(effects) * (1 / len(effects))


def slope(curve, log=True):
    """The slope of a least-squares line through `{x: Effect}`, against x or its log2.

    Raises LookupError if there is only one x.
    """
    if len(curve) < 2:
        raise LookupError("no two places for a slope")
    x = np.array(list(curve), float)
    x = np.log2(x) if log else x
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    # a place in the middle has no weight: its seeds do not matter
    return sum(effect * weight for weight, effect in zip(weights, curve.values()) if weight)


class Crossing:
    """Where a curve `{x: Effect}` first falls to zero as x grows, interpolated against log x.

    An interval's ends are where the curves of the effects' own ends fall to zero. Places beyond the
    largest x tested are inf, those below the smallest are 0.
    """

    def __init__(self, curve):
        self.curve = dict(sorted(curve.items()))
        self.x = np.array(list(self.curve), float)
        self.n = min((effect.n for effect in self.curve.values()), default=0)

    @property
    def value(self):
        values = [effect.value for effect in self.curve.values()]
        return self._zero(values) if values else np.nan

    def interval(self, confidence=0.95):
        ends = np.array([effect.interval(confidence) for effect in self.curve.values()])
        if not len(ends) or not np.isfinite(ends).all():
            return np.nan, np.nan
        return self._zero(ends[:, 0]), self._zero(ends[:, 1])

    @property
    def covers_images(self):
        return all(effect.covers_images for effect in self.curve.values())

    @property
    def unclear(self):
        """The tested places around the value if they are too far apart to tell where it is."""
        i = np.searchsorted(self.x, self.value)
        between = 0 < i < len(self.x) and np.isfinite(self.value)
        far = between and self.x[i] > FACTOR * self.x[i - 1]
        return tuple(self.x[i - 1:i + 1]) if far else None

    def text(self):
        """The place in words."""
        if self.unclear:
            return "between {:g} and {:g}".format(*self.unclear)
        return place(self.value)

    def _zero(self, values):
        i = next((i for i, value in enumerate(values) if value <= 0), None)
        if not i:
            return np.inf if i is None else 0.0
        at = np.interp(0, [values[i], values[i - 1]], np.log([self.x[i], self.x[i - 1]]))
        return float(np.exp(at))


def place(value, unit="", digits=0):
    """A place of a `Crossing` as text.

    Args:
        unit: such as "E ", for places that were not tested.
    """
    if np.isnan(value):
        return "unknown, since no network has both runs"
    if np.isinf(value):
        return f"beyond the largest {unit}tested"
    return f"{value:.{digits}f}" if value else f"below the smallest {unit}tested"
