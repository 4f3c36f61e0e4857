"""Command line; see `equilign.cli.main`."""
