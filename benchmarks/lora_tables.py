"""The tables that the system's first description left open: coverage, retention by method, drift.

Runs (or resumes) the demo's run of adapters; what carriers make of the same adapters is read from
what `benchmarks.lora_carriers` has recorded.

    python -m benchmarks.lora_tables [--quick] [SKILL ...]
"""

import argparse
from collections.abc import Mapping
from typing import Any

from alignment.coverage import LEAST
from benchmarks import lora_carriers
from benchmarks.adapters import Run
from benchmarks.record import record
from evaluation.cargos.lora import AdapterCell
from evaluation.hypotheses import hypotheses
from evaluation.matrix import Matrix
from jobs.progress import Reporter
from jobs.sweep import sweep


def main() -> None:
    """Measure, print and record; some skills alone in a file of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("skills", nargs="*")
    parser.add_argument("--quick", action="store_true", help="a quick run (adapters.Run)")
    asked = parser.parse_args()
    matrix = sweep(Run.read(asked.skills, quick=asked.quick).file, Reporter()).matrix
    carriers = {} if asked.quick else lora_carriers.recorded()
    of = ["quick"] * asked.quick + asked.skills
    _report(".".join(["lora_tables", *of]), matrix, carriers)


def _report(name: str, matrix: Matrix, carriers: Mapping[str, Any]) -> None:
    cells = [cell for cell in matrix.cells if isinstance(cell, AdapterCell)]
    tables = {
        "coverage": _coverage(matrix),
        "retention": _retention(cells, carriers),
        "drift": _drift(cells),
    }
    decided = {each.name: each.verdict for each in hypotheses(cells)}
    kept = [cell.model_dump(mode="json") for cell in cells]
    record(name, {"tables": tables, "hypotheses": decided, "cells": kept})
    for title, rows in tables.items():
        print(f"\n{title}\n")
        print("\n".join(" | ".join(("", *row, "")).strip() for row in rows))


def _coverage(matrix: Matrix) -> list[list[str]]:
    """Shares of target layers with a partner, by the criterion."""
    rows = [["pair", "raw CKA above 0.7", "CKA above 0.7", "above chance", "carried, by raw CKA"]]
    for pair in matrix.similarities:
        shares = pair.coverage_raw, pair.coverage_070, pair.coverage_null
        would = "yes" if pair.coverage_raw >= LEAST else "no"
        rows.append([f"{pair.source}, {pair.target}", *(f"{of:.2f}" for of in shares), would])
    return rows


def _retention(cells: list[AdapterCell], carriers: Mapping[str, Any]) -> list[list[str]]:
    """By method, of each skill and direction."""
    heads = [f"{cell.concept}, {cell.source} -> {cell.target}" for cell in cells]
    found: dict[str, list[str]] = {}
    for cell in cells:
        of_cell = {way.name: way.retention for way in cell.ways}
        of_cell |= {each.name: each.retention for each in cell.controls}
        shares = {name: None if of is None else of.value for name, of in of_cell.items()}
        others = carriers.get(f"{cell.source} -> {cell.target}", {}).get(cell.concept, {})
        shares |= {
            name: (of["retention"] or {}).get("value")
            for name, of in others.items()
            if lora_carriers.NOT_APPLICABLE not in of
        }
        said = {name: "undefined" if of is None else f"{of:.2f}" for name, of in shares.items()}
        said |= dict.fromkeys(others.keys() - shares.keys(), lora_carriers.NOT_APPLICABLE)
        for name, of in said.items():
            found.setdefault(name, []).append(of)
    return [["method", *heads], *([name, *shares] for name, shares in found.items())]


def _drift(cells: list[AdapterCell]) -> list[list[str]]:
    """How much more often harmful requests are answered."""
    rows = [["carried", "refused before", "refused after", "drift"]]
    for cell in cells:
        if cell.safety is not None:
            of = cell.safety
            values = (each.value for each in (of.harmful_before, of.harmful_after, of.drift))
            name = f"{cell.concept}, {cell.source} -> {cell.target}"
            rows.append([name, *(f"{value:.2f}" for value in values)])
    return rows


if __name__ == "__main__":
    main()
