"""Names and numbers as people read them: on the page, in pictures and on a terminal."""

import math

from evaluation.retention import Interval

DASH = "–"
_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
_SPELT = {"json": "JSON", "kv": "KV", "lora": "LoRA", "python": "Python", "rust": "Rust"}


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def percent(value: float | None) -> str:
    """A share as whole per cent."""
    shown = number(None if value is None else 100 * value, 0)
    return shown if shown == DASH else f"{shown}\N{NO-BREAK SPACE}%"


def portion(share: float) -> str:
    """A share that somebody chose, as per cent with the digits it was given."""
    return f"{100 * share:g}\N{NO-BREAK SPACE}%"


def short(address: str) -> str:
    """The beginning of an address or fingerprint: enough to recognise it."""
    return address[:12]


def spelt(share: Interval | None) -> str:
    """A share in a line, with its interval."""
    if share is None:
        return "undefined"
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def words(name: str) -> str:
    """A name as words."""
    return " ".join(_SPELT.get(word, word) for word in name.replace("_", " ").split(" "))


def titled(name: str) -> str:
    """A name as words that begin a line."""
    said = words(name)
    return said[:1].upper() + said[1:]


def count(many: int, noun: str) -> str:
    """So many of something, in words where they are few."""
    said = _COUNTS[many] if many < len(_COUNTS) else str(many)
    return f"{said} {noun}" if many == 1 else f"{said} {noun}s"


def listed(names: list[str]) -> str:
    """Names in a row, with an "and" before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "")))
