"""Whole experiments behind the commands: what `cli` calls after parsing."""
