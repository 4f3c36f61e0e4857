"""Ready-made prompts and oracles."""
