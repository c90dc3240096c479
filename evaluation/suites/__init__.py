"""Behaviours that a carried cargo should change: one file each, one line here."""

from evaluation.suite import Suite
from evaluation.suites.coordination import COORDINATION
from evaluation.suites.corrigibility import CORRIGIBILITY
from evaluation.suites.formality import FORMALITY
from evaluation.suites.hallucination import HALLUCINATION
from evaluation.suites.myopia import MYOPIA
from evaluation.suites.refusal import REFUSAL
from evaluation.suites.sentiment import SENTIMENT
from evaluation.suites.survival import SURVIVAL
from evaluation.suites.sycophancy import SYCOPHANCY

SUITES: dict[str, Suite] = {
    "coordination": COORDINATION,
    "corrigibility": CORRIGIBILITY,
    "formality": FORMALITY,
    "hallucination": HALLUCINATION,
    "myopia": MYOPIA,
    "refusal": REFUSAL,
    "sentiment": SENTIMENT,
    "survival": SURVIVAL,
    "sycophancy": SYCOPHANCY,
}

__all__ = ["SUITES"]
