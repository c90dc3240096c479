"""The picture for the tracker says what the matrix says."""

from collections.abc import Callable
from io import BytesIO

from evaluation.figure import matrix_figure
from evaluation.matrix import Matrix, Unavailable


def test_every_cell_is_written_with_its_level(made_up: Callable[..., Matrix]) -> None:
    matrix = made_up(4)
    figure = matrix_figure(matrix, matrix.cells)
    said = [text.get_text() for text in figure.axes[0].texts]
    for cell in matrix.cells:
        assert str(cell.level) in said
        if cell.retention is not None:
            assert f"{cell.retention.value:.2f}" in said
    assert said.count("itself") == 4
    gone = Unavailable(name="gpt-4", reason="gpt-4 of OpenAI: its weights are not published")
    closed = matrix_figure(matrix.model_copy(update={"unavailable": (gone,)}), matrix.cells)
    assert [text.get_text() for text in closed.axes[0].texts].count("Unavailable") == 8
    caches = matrix_figure(matrix, made_up(4, caches=True).cells[12:])
    assert "KV cache, continuation: share" in caches.get_suptitle()
    picture = BytesIO()
    figure.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
