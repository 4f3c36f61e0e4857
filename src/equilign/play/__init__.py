"""A rule on a matrix, exactly. No torch here."""

from equilign.play.exact import apply_stage, log_normalise, mirror_step

__all__ = ["apply_stage", "log_normalise", "mirror_step"]
