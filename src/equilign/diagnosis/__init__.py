"""Is a reward model enough for these preferences? Statistics of comparisons; no torch here."""

from equilign.diagnosis.diagnose import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
