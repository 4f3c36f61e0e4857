"""Shared by the tests of games."""

import jaxtyping
import pytest


@pytest.fixture
def without_shape_checks():
    """As users run it: the run-time shape checks of this suite would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
