"""Self-play preference optimisation (arXiv:2405.00675): its comparison with iterated DPO and IPO.

`pieces` trains one method with one seed, `judging` lets all policies of a seed play each other,
`estimates` puts seeds and prompts together, `claims` judges, `page` shows.
"""
