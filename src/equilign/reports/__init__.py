"""Reports: one self-contained page per run, and its figures as files."""

from equilign.reports.figures import save_figures
from equilign.reports.page import render_report

__all__ = ["render_report", "save_figures"]
