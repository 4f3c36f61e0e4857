"""`equilign tournament`: everybody against everybody on the same prompts."""
