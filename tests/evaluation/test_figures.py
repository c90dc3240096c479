"""Pictures for papers: one of each kind that the page has, in both forms, with words in them."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from evaluation.figures import FORMATS, write_figures
from evaluation.matrix import Matrix
from evaluation.retention import Interval
from evaluation.routes import Route
from evaluation.wording import titled

Maker = Callable[..., Matrix]


def words_in(svg: Path) -> str:
    return " ".join("".join(each.itertext()) for each in ElementTree.parse(svg).getroot())


def test_every_picture_of_the_page_is_there_in_both_forms(made_up: Maker, tmp_path: Path) -> None:
    matrix = made_up(3, caches=True, skills=("social_media", "json_answers"))
    first, second, third = (model.name for model in matrix.models)
    route = Route(
        source=first, target=second, cargo="steering", concept="sentiment",
        path=(first, third, second), expected=0.6, direct=Interval(0.4, 0.3, 0.5),
        routed=Interval(0.6, 0.5, 0.7), gain=Interval(0.2, 0.1, 0.3), others=(),
    )  # fmt: skip
    matrix = matrix.model_copy(update={"routes": (route,)})
    written = write_figures(matrix, tmp_path / "figures")
    names = list(dict.fromkeys(path.stem for path in written))
    assert names[:4] == [
        "matrix_steering_sentiment",
        "matrix_kv_cache_continuation",
        "matrix_lora_social_media",
        "matrix_lora_json_answers",
    ]
    assert "routes_steering_sentiment" in names
    assert f"strengths_{first}_{second}_steering_sentiment" in names
    assert {f"kept_{'_'.join(cell.key).replace(' ', '-')}" for cell in matrix.cells} <= set(names)
    assert "foretold_steering" in names
    assert "degradation_kv_cache_length-of-the-context" in names
    assert f"layers_{first}_{second}" in names
    assert sorted(written) == sorted((tmp_path / "figures").iterdir()), "nothing half-written"
    assert len(written) == len(FORMATS) * len(names)
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    assert first in words_in(tmp_path / f"figures/layers_{first}_{second}.svg")
    shown = words_in(tmp_path / f"figures/kept_{first}_{second}_steering_sentiment.svg")
    assert all(titled(control.name) in shown for control in matrix.steering[0].controls)
    assert "500 characters" in words_in(
        tmp_path / "figures/degradation_kv_cache_length-of-the-context.svg"
    )


def test_the_same_matrix_is_drawn_the_same(made_up: Maker, tmp_path: Path) -> None:
    matrix = made_up(2)
    one, other = (write_figures(matrix, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
