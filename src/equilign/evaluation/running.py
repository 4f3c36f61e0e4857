"""Means with intervals over more prompts than fit into memory."""

from dataclasses import dataclass

import numpy as np

from equilign.evaluation.intervals import Estimate, mean_interval


@dataclass
class RunningMean:
    """`equilign.evaluation.clustered_mean` of numbers that arrive one by one.

    The mean and the sum of squared deviations are updated together (Welford 1962), so that nothing
    cancels.

    Attributes:
        count: numbers so far; nan is none.
        mean: of them.
        squares: sum of squared deviations from it.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more prompt's mean; nan (no verdict) does not count."""
        if np.isnan(value):
            return
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    def estimate(
        self, bounds: tuple[float, float] = (0.0, 1.0), confidence: float = 0.95
    ) -> Estimate | None:
        """Mean with its interval; None where nothing counted."""
        if self.count == 0:
            return None
        variance = self.squares / (self.count - 1) if self.count > 1 else 0.0
        ends = mean_interval(self.mean, variance, self.count, confidence, bounds)
        return Estimate(self.mean, *ends, self.count)
