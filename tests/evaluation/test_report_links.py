"""A cell of the matrix leads to its evidence, and that to its layers, in a real Chromium."""

import re
from collections.abc import Callable
from pathlib import Path

from evaluation.matrix import Matrix
from evaluation.report import write_page
from tests.evaluation.test_report import chromium, dumped

Maker = Callable[..., Matrix]
__all__ = ["chromium"]  # the fixture


def test_a_cell_of_the_matrix_leads_to_its_evidence(
    chromium: str, made_up: Maker, tmp_path: Path
) -> None:
    matrix = made_up(4)
    page = tmp_path / "page.html"
    write_page(matrix, page)
    links = re.findall(
        r'<td><a href="#([^"]+)"><span class="unseen">(.*?): </span>', page.read_text()
    )
    assert [name for _, name in links] == [f"{of.source} into {of.target}" for of in matrix.cells]
    layers = re.findall(r'<a href="#(layers--[^"]+)">', page.read_text())
    assert len(layers) == len(matrix.cells)
    assert all(f'<div class="pair" id="{name}">' in page.read_text() for name in layers)
    shown = dumped(chromium, f"{page.as_uri()}#{links[-1][0]}", tmp_path)
    opened = re.findall(r'<details class="cell" id="([^"]+)" open', shown)
    assert opened == [links[-1][0]]
