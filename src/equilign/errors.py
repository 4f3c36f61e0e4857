"""Errors a user can cause. Each message says what was wrong, where, what was seen, and the cure."""


class EquilignError(Exception):
    """Base of every error that has a cure outside the program.

    Attributes:
        exit_code: of a command that ends with it: 2 where the user's input is wrong, else 1.
    """

    exit_code = 2


class ConfigError(EquilignError, ValueError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(EquilignError, ValueError):
    """A data file is unreadable, empty or malformed; names the file and the line."""


class ModelError(EquilignError, ValueError):
    """A model folder cannot be loaded, or lacks what the method needs."""


class OracleError(EquilignError, ValueError):
    """An oracle answered something that is no win probability."""


class BudgetError(OracleError):
    """A paid judge may ask no more; what it was paid for is kept, and the run can resume."""


class PolicyError(EquilignError, ValueError):
    """A policy is not a point on the simplex."""


class PreferenceMatrixError(EquilignError, ValueError):
    """A matrix is not one of win probabilities."""


class RunDirectoryError(EquilignError, ValueError):
    """An output directory holds another run, or cannot be written."""


class DiskFullError(EquilignError, OSError):
    """The disk is full; what had been written is intact."""
