"""Reports: one self-contained page per run, and its figures as files."""

from equilign.reports.figures import save_figures
from equilign.reports.page import render_report
from equilign.reports.side_by_side import side_by_side

__all__ = ["render_report", "save_figures", "side_by_side"]
