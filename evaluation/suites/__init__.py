"""Behaviours that a carried cargo should change: one file each, one line here."""

from evaluation.suite import Suite
from evaluation.suites.sentiment import SENTIMENT

SUITES: dict[str, Suite] = {"sentiment": SENTIMENT}

__all__ = ["SUITES"]
