"""Errors that callers distinguish by type."""

from __future__ import annotations


class DivergedError(ValueError):
    """Training has diverged: a parameter, an error or an output is no longer a finite number.

    The message says where. A sweep counts such a setting as failed and continues.
    """
