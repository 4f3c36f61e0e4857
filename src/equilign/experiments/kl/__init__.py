"""`equilign kl`: how far models are from a start model."""
