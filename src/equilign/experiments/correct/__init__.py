"""`equilign correct`: who improves whose answers."""
