import pytest
import torch

from alignment.fitted import FitError
from alignment.fitters.identity import Identity
from tests.alignment.fitters.oracle import fit, linear, rows


def test_identity_changes_nothing_and_is_judged_on_the_rows() -> None:
    x, y = rows(8, 8)
    found = fit(Identity(), x, y)
    assert torch.equal(linear(found).transform(x.float()), x.float())
    assert found.held_out_r2 < fit(Identity(), x, x + 0.1 * y).held_out_r2 < 1


def test_widths_that_differ_are_refused_in_one_line() -> None:
    with pytest.raises(FitError, match=r"\Acannot fit: identity needs equal widths, not 8 to 5\Z"):
        fit(Identity(), *rows(8, 5))
