"""A cargo is one file in each of two rooms; both know the same ones."""

from pathlib import Path
from typing import get_args

import pytest

import evaluation.cargos
from evaluation.cargos import CARGOS as JUDGED
from evaluation.cargos import AnyCell
from evaluation.cells import Said
from jobs import config
from jobs.cargos import CARGOS, carried_in
from jobs.config import RunFile
from jobs.names import ROOT

CELLS = {each.model_fields["cargo"].default: each for each in get_args(AnyCell)}


def test_each_has_its_section_and_its_cell() -> None:
    assert tuple(CARGOS) == JUDGED
    assert set(CARGOS) == set(CELLS) == set(JUDGED) == set(config.CARGOS)
    assert set(CARGOS) <= set(RunFile.model_fields)


@pytest.mark.parametrize("name", CARGOS)
def test_each_says_of_itself_what_the_page_and_the_terminal_need(name: str) -> None:
    folder = Path(evaluation.cargos.__file__).parent
    assert (folder / f"{name}.html.j2").is_file()
    assert isinstance(CELLS[name].said, Said)
    assert len({each.said.short for each in CELLS.values()}) == len(CELLS)


def test_what_fits_maps_of_sites_is_carried_first() -> None:
    fits = [each.fits_sites for each in CARGOS.values()]
    assert fits == sorted(fits, reverse=True)


def test_a_run_carries_what_it_has_a_section_of() -> None:
    fleet = config.read_run_file(ROOT / "configs" / "fleet.yaml")
    every = ("steering", "kv_cache", "lora", "soft_prompt")
    assert carried_in(fleet) == [CARGOS[name] for name in every]
    demo = config.read_run_file(ROOT / "configs" / "demo.yaml")
    assert carried_in(demo) == [CARGOS["steering"]]
