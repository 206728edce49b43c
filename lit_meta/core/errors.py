"""Errors that callers tell apart by their type."""

from __future__ import annotations


class DivergedError(ValueError):
    """Training has diverged: a parameter, an error or an output is no longer a finite number.

    The message says where. A search over settings counts such a setting as failed and goes on.
    """
