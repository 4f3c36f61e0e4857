"""Optimistic multiplicative weights in preference games (arXiv:2512.24818): its experiments.

Parts, each with games of its own: `tabular` (curves and best hyperparameters), `floors` (bias of
regularised methods), `linear_phase`, `regrowth` and `networks`; `claims` judges, `page` shows.
"""
