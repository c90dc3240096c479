"""Workers that hold no model start without the libraries of models: those take seconds."""

import subprocess
import sys

import pytest

from jobs.names import ROOT


@pytest.mark.parametrize("module", ["actors.folder", "actors.cache_folder"])
def test_a_folder_needs_no_library_of_models(module: str) -> None:
    asked = (
        f"import sys, {module}\nprint(sorted({{'transformers', 'tokenizers'}} & {{*sys.modules}}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "[]\n", ran.stderr
