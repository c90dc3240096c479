"""Colours of the levels, shared by the page and the figure. Blue to orange: safe for all eyes."""

from evaluation.retention import Level

LEVEL_COLOURS = {
    Level.EXCELLENT: "#14507a",
    Level.GOOD: "#2a74a8",
    Level.ACCEPTABLE: "#9ccbe6",
    Level.MARGINAL: "#f2c879",
    Level.POOR: "#d4722f",
    Level.UNDEFINED: "#b9bec4",
    Level.UNAVAILABLE: "#dde0e3",
}

# The text that reads on each colour, at a contrast of 4.5 or more.
LEVEL_INKS = {
    Level.EXCELLENT: "#ffffff",
    Level.GOOD: "#ffffff",
    Level.ACCEPTABLE: "#10202c",
    Level.MARGINAL: "#10202c",
    Level.POOR: "#10202c",
    Level.UNDEFINED: "#10202c",
    Level.UNAVAILABLE: "#10202c",
}
