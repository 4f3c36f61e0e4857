"""STA-RLHF: the language model leads, the reward model follows.

`pieces` trains one method on one task with one seed, `results` puts the measured numbers together,
`claims` judges, `page` shows.
"""
