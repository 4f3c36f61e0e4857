"""Stackelberg learning from human feedback (arXiv:2512.16626): Leader, Follower, refinement.

`tabular` has the figures that can be computed exactly, `pieces` trains one method with one seed,
`playing` lets Followers answer everybody, `judging` measures one seed, `claims` judges, `page`
shows.
"""
