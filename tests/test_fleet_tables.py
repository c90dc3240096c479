"""What the page of the matrix shows is what was recorded."""

import json
from pathlib import Path

from benchmarks.fleet_tables import tables
from benchmarks.record import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "matrix.md"


def test_every_table_of_the_page_is_the_records() -> None:
    page = PAGE.read_text()
    found = tables(json.loads((RESULTS / "fleet.json").read_text())["runs"]["fleet"])
    assert [each for each in found if each not in page] == []
