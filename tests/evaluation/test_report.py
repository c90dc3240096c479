"""The page, read by a real headless Chromium at the width of a laptop and of a phone."""

import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.cells import Control
from evaluation.degradation import degradations
from evaluation.matrix import GroupAgreement, Matrix, Unavailable
from evaluation.predictors import predictors
from evaluation.report import render, summary, write_page
from evaluation.retention import Interval
from evaluation.routes import Route

Maker = Callable[..., Matrix]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--virtual-time-budget=4000",
]

# The page goes into frames of each width: Chromium opens no window narrower than 500 pixels.
PROBE = """<!doctype html><body style="margin:0">{frames}<pre id="said"></pre><script>
onload = () => {{
  const said = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    for (const details of page.querySelectorAll("details")) details.open = true;
    const inside = (part) => part.closest(".scroll, svg");
    const wide = [...page.body.querySelectorAll("*")].filter(
      (part) => !inside(part) && part.getBoundingClientRect().right > width + 0.5);
    const labels = [...page.querySelectorAll("svg[role=img]")].map((svg) => svg.ariaLabel);
    const named = [...page.querySelectorAll(".scroll")].every((part) => part.ariaLabel);
    said[frame.width] = {{
      overflow: page.documentElement.scrollWidth - width,
      wide: wide.map((part) => part.outerHTML.slice(0, 80)),
      height: page.documentElement.scrollHeight,
      pictures: labels.length,
      unnamed: labels.filter((label) => !label).length,
      named: named,
      reached: [...page.querySelectorAll("a, summary, .scroll")].every((p) => p.tabIndex >= 0),
      requests: frame.contentWindow.performance.getEntriesByType("resource").length,
    }};
  }}
  document.getElementById("said").textContent = JSON.stringify(said);
}};
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("chromium is not installed: `make setup` installs it", pytrace=False)
    return found


def dumped(chromium: str, url: str, directory: Path) -> str:
    """A page as it stands once its scripts have run."""
    profile = f"--user-data-dir={directory / 'profile'}"
    finished = subprocess.run(
        [chromium, *QUIET, profile, "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return finished.stdout


def _look(chromium: str, text: str, directory: Path) -> dict[str, dict[str, object]]:
    frame = '<iframe width="{}" height="900" style="border:0;display:block" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, html.escape(text)) for width in (1440, 390))
    probe = directory / "probe.html"
    probe.write_text(PROBE.format(frames=frames))
    shown = dumped(chromium, probe.as_uri(), directory)
    said = re.search(r'<pre id="said">(.*?)</pre>', shown, re.DOTALL)
    assert said is not None, shown[-2000:]
    return json.loads(html.unescape(said.group(1)))


@pytest.mark.parametrize(
    ("count", "concepts", "caches", "skills"),
    [(2, 1, False, 0), (4, 1, False, 0), (2, 3, False, 0), (2, 1, True, 2)],
)
def test_it_reads_at_both_widths(
    chromium: str,
    made_up: Maker,
    tmp_path: Path,
    count: int,
    concepts: int,
    caches: bool,
    skills: int,
) -> None:
    names = ("sentiment", "refusal", "self-preservation")[:concepts]
    taught = ("social_media", "json_answers")[:skills]
    matrix = made_up(count, concepts=names, caches=caches, skills=taught)
    rows = 8 * concepts + 6 * caches + 5 * skills  # of the forest of each pair
    spread = sum(len(each.forest.rows) for each in degradations(matrix))
    curves = len(matrix.steering)
    assert bool(spread) == (concepts > 1 or caches)
    scatters = sum(map(len, predictors(matrix).values()))
    assert bool(scatters) == (count > 2)
    seen = _look(chromium, render(matrix), tmp_path)
    assert set(seen) == {"1440", "390"}
    for width, page in seen.items():
        assert page["overflow"] == 0, f"{width} px: {page['wide']}"
        assert page["wide"] == [], f"{width} px"
        assert page["unnamed"] == 0
        assert page["named"] is True
        assert page["reached"] is True, "by keyboard"
        assert page["requests"] == 0, "the page asks for nothing"
        assert (
            page["pictures"]
            == (2 * rows + 3) * count * (count - 1) // 2 + scatters + spread + curves
        )
        assert 2000 < int(str(page["height"])) < 60_000


def routed(matrix: Matrix, gains: tuple[float, ...]) -> Matrix:
    """With routes of its first pairs, through the last model, that gain so much."""
    last = matrix.models[-1].name
    cells = [cell for cell in matrix.steering if last not in (cell.source, cell.target)]
    routes = [
        Route(
            source=cell.source,
            target=cell.target,
            cargo=cell.cargo,
            concept=cell.concept,
            path=(cell.source, last, cell.target),
            expected=0.6,
            direct=Interval(0.4, 0.35, 0.45),
            routed=Interval(0.4 + gain, 0.35 + gain, 0.45 + gain),
            gain=Interval(gain, gain - 0.05, gain + 0.05),
            others=(Control(name="through the shared hub", retention=Interval(0.3, 0.2, 0.4)),),
        )
        for cell, gain in zip(cells, gains, strict=False)
    ]
    return matrix.model_copy(update={"routes": tuple(routes)})


def test_routes_are_a_picture_and_a_table(chromium: str, made_up: Maker, tmp_path: Path) -> None:
    matrix = routed(made_up(4), (0.2, -0.1))
    text = render(matrix)
    seen = _look(chromium, text, tmp_path)
    plain = _look(chromium, render(made_up(4)), tmp_path)
    for width, page in seen.items():
        assert page["overflow"] == 0, f"{width} px: {page['wide']}"
        assert page["unnamed"] == 0
        assert page["pictures"] == int(str(plain[width]["pictures"])) + 1
    assert "1 of 2 routes are recommended" in text
    assert text.count('class="hop routed"') == 2, "the hops of the recommended path"
    assert text.count('class="hop"') == 12 - 2
    assert "not better than direct" in text
    assert Matrix.from_json(matrix.to_json()).routes == matrix.routes


def test_the_file_is_self_contained_and_whole(made_up: Maker, tmp_path: Path) -> None:
    matrix = made_up(2)
    path = write_page(matrix, tmp_path / "out" / "page.html")
    text = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;made of glass&gt; &amp; silver" in text, "what models write is only ever text"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    write_page(matrix, path)
    assert path.read_text() == text, "the same matrix gives the same page"


def test_every_number_that_matters_is_on_it(made_up: Maker) -> None:
    text = render(made_up(4))
    for said in ("Excellent", "0.93 to 1.00", "Undefined", "no native effect", "Poor", "0.014"):
        assert said in text
    for name in ("smollm2-135m", "gemma3_text", "262,144", "a5a5a5a5a5a5", "sentiment"):
        assert name in text


def test_a_matrix_without_cells_or_numbers_still_has_a_page(made_up: Maker) -> None:
    matrix = made_up(2)
    empty = matrix.model_copy(update={"cells": (), "similarities": ()})
    assert "Nothing was carried." in render(empty)
    undefined = matrix.model_copy(
        update={"cells": (made_up(4).cells[5],), "models": made_up(4).models}
    )
    assert "no clear native effect" in summary(undefined)
    render(undefined)


def test_several_concepts_have_a_table_each_and_one_of_all(made_up: Maker) -> None:
    matrix = made_up(4, concepts=("sentiment", "refusal"))
    text = render(matrix)
    assert text.count('class="matrix"') == 2
    for line in ("steering, sentiment", "steering, refusal", "steering, all"):
        assert f'<th scope="row">{line}</th>' in text
    assert "11 of 12" in text
    assert "22 of 24" in text
    said = summary(matrix)
    assert "of 24 crossings of 2 concepts" in said
    assert "sentiment from smollm2-135m into" in said or "sentiment from gemma-3-270m into" in said


def test_caches_stand_beside_steering(made_up: Maker) -> None:
    text = render(made_up(3, caches=True))
    assert text.count('class="matrix"') == 2
    assert "<h4>KV cache, continuation</h4>" in text
    assert 'href="#smollm2-135m--gemma-3-270m--kv_cache--continuation"' in text
    cell = text.partition('id="smollm2-135m--gemma-3-270m--kv_cache--continuation"')[2]
    cell = cell.partition("</details>")[0]
    for said in (
        "<dt>Target alone</dt><dd>3.273 <small>(3.163 to 3.383)</small>",
        "<dt>Native</dt><dd>2.871",
        "<dt>Carried</dt><dd>3.037",
        'aria-label="Own tokens alone: 0.18, from 0.13 to 0.23"',
        'aria-label="Another text: −0.31, from −0.37 to −0.25"',
        '<th scope="row">source code</th><td class="num">16</td><td class="num">0.581</td>',
        '<th scope="row">the last 12.5\N{NO-BREAK SPACE}%</th>',
        "About 500 characters of each text are cached",
    ):
        assert said in cell
    for said in ("Written at", "Cosine to native", "On neutral text", "writes, before and after"):
        assert said not in cell


def test_each_cargo_is_summed_up_and_explained_where_there_is_one(made_up: Maker) -> None:
    both = made_up(2, caches=True)
    steering, caches = summary(both).splitlines()
    assert steering == summary(made_up(2))
    assert caches == (
        "KV caches crossed well (Good or better) in 0 of 2 directions. The best, smollm2-135m into "
        "gemma-3-270m, kept 59 % of what the target gains by its own cache (95 % interval 54 to "
        "63 %). The weakest, gemma-3-270m into smollm2-135m, kept 41 %. A map that reads nothing "
        "of the source, only what the target knows of its own tokens, kept up to 18 %: what is "
        "kept beyond that has crossed. Where the target reads the last 12.5 %, 25 % and 50 % of "
        "the tokens again itself, up to 69 %, 77 % and 89 % is kept. No control did better than "
        "the target alone."
    ).replace(" %", "\N{NO-BREAK SPACE}%").replace("(95\N{NO-BREAK SPACE}%", "(95 %")
    alone = both.model_copy(update={"cells": both.cells[2:]})
    assert summary(alone).startswith("Two models took part: smollm2-135m and gemma-3-270m. KV ")
    text = render(alone)
    assert "A KV cache</b> is handed over" in text
    assert "On dev</b>" not in text


def test_adapters_stand_beside_steering(made_up: Maker) -> None:
    matrix = made_up(2, skills=("social_media", "json_answers"))
    text = render(matrix)
    assert text.count('class="matrix"') == 3
    assert "<h4>LoRA, JSON answers</h4>" in text
    cell = text.partition('id="smollm2-135m--gemma-3-270m--lora--social_media"')[2]
    cell = cell.partition("</details>")[0]
    for said in (
        "<dt>Target alone</dt><dd>1.846 <small>(1.796 to 1.896)</small>",
        "In bits per character.",
        "taught by 80,120 tokens",
        '<th scope="row">refit on anchors</th><td class="num">7,912</td>',
        "0.412, 0.187",
        "Shuffled teacher",
        'the carried adapter</th><td class="num">0.56 <small>(0.43 to 0.69)</small>',
        "wrong about 0.06",
    ):
        assert said in cell
    assert "<td>more than 50 % of a skill crosses, somewhere</td><td>supported</td>" in text
    assert "rise by less than 10 %, everywhere</td><td>undecided</td>" in text
    assert summary(matrix).splitlines()[-1] == (
        "LoRA adapters crossed well (Good or better) in 0 of 4 crossings of 2 skills. The best, "
        "JSON answers from smollm2-135m into gemma-3-270m, kept 81\N{NO-BREAK SPACE}% of what the "
        "target gains by its own (95 % interval 77 to 85\N{NO-BREAK SPACE}%). The weakest, social "
        "media from gemma-3-270m into smollm2-135m, kept 44\N{NO-BREAK SPACE}%. The strongest "
        "control, another skill, which should carry nothing, reached 5\N{NO-BREAK SPACE}% of the "
        "native effect."
    )


def test_latents_stand_beside_steering(made_up: Maker) -> None:
    matrix = made_up(2, latents=True)
    text = render(matrix)
    cell = text.partition('id="smollm2-135m--gemma-3-270m--soft_prompt--sentiment"')[2]
    cell = cell.partition("</details>")[0]
    for said in (
        "<dt>Without the text</dt><dd>0.505 <small>(0.435 to 0.575)</small>",
        "Unit: share right.",
        "a prompt of 16 rows that 61,440 tokens of the same lessons have taught it in 260 s",
        '<th scope="row">joining later</th><td class="num">154,200</td>',
        "the first 16 tokens of the text, after the native prompt",
        "latents of the text’s bytes, which no model has read",
        "Mean latents",
        "<dt>Adapter of the target</dt>",
    ):
        assert said in cell
    assert "<b>Latents</b> stand in place of a text that the source has read" in text
    last = summary(matrix).splitlines()[-1]
    assert last.startswith(
        "Latents crossed well (Good or better) in 1 of 2 directions. The best, smollm2-135m into "
        "gemma-3-270m, kept 96\N{NO-BREAK SPACE}% of what the target makes of the texts"
    )


def test_what_each_cargo_takes_is_a_table(made_up: Maker) -> None:
    text = render(made_up(2, caches=True, skills=("social_media",), latents=True))
    table = text.partition('aria-label="Costs"')[2].partition("</table>")[0]
    heads = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert heads[0].startswith("Steering, ")
    assert heads[1:] == ["KV cache, continuation", "LoRA, social media", "Soft prompt, sentiment"]
    steering, adapters = table.partition("LoRA, social media")[::2]
    assert steering.count(">–</td>") == 8  # nothing is trained in the target
    assert ">80,120</td>" in adapters
    assert "Costs" not in render(made_up(2).model_copy(update={"cells": ()}))


def test_where_less_is_kept_is_drawn_for_each_cargo(made_up: Maker) -> None:
    text = render(made_up(2, caches=True, skills=("social_media", "json_answers")))
    drawn = text.partition('id="degradation"')[2].partition("</section>")[0]
    heads = re.findall(r"<h3>(.*?)</h3>", drawn)
    assert heads == [
        "KV cache, by length of the context",
        "KV cache, by kind of text",
        "KV cache, by source of the loss",
        "LoRA, by what is carried",
    ]
    assert "500 characters<span>2 of 2 crossings</span>" in drawn
    assert "Dialogue<span>0 of 2 crossings</span>" in drawn, "no native gain there"
    assert 'id="degradation"' not in render(made_up(2))


def test_a_control_of_caches_that_does_good_is_said(made_up: Maker) -> None:
    both = made_up(2, caches=True)
    wrong = Control(name="another text", retention=Interval(0.07, 0.01, 0.13))
    cell = both.cells[2].model_copy(update={"controls": (wrong,), "again": (), "tokens": None})
    said = summary(both.model_copy(update={"cells": (cell,)}))
    assert said.endswith(
        "The strongest control, which should carry nothing, kept 7\N{NO-BREAK SPACE}%."
    )
    assert "its own tokens" not in said
    assert "again itself" not in said


def test_what_nothing_can_reach_has_a_row_and_a_column_with_the_reason(made_up: Maker) -> None:
    reason = "gpt-4 of OpenAI: its weights are not published, so that no cache can cross"
    closed = made_up(2).model_copy(
        update={"unavailable": (Unavailable(name="gpt-4", reason=reason),)}
    )
    assert Matrix.from_json(closed.to_json()).unavailable == closed.unavailable
    text = render(closed)
    table = text.partition('<table class="matrix">')[2].partition("</table>")[0]
    assert table.count("<b>Unavailable</b>") == 4
    assert table.count("itself") == 3
    assert reason in text.partition('id="models"')[2]


def test_groups_have_a_table_where_there_are_any(made_up: Maker) -> None:
    title = "How far the groups of a concept agree"
    matrix = made_up(2)
    assert title not in render(matrix)
    agreed = GroupAgreement(
        concept="sentiment",
        model="gemma-3-270m",
        site="residual.10",
        names=("films", "books", "plays"),
        cosine=((1.0, 0.81, 0.77), (0.81, 1.0, 0.43), (0.77, 0.43, 1.0)),
        debiased=((1.0, 0.9, 0.8), (0.9, 1.0, math.nan), (0.8, math.nan, 1.0)),
        low=((1.0, 0.7, 0.6), (0.7, 1.0, -1.0), (0.6, -1.0, 1.0)),
        high=((1.0, 0.95, 0.9), (0.95, 1.0, 1.0), (0.9, 1.0, 1.0)),
        null_95=0.19,
    )
    text = render(matrix.model_copy(update={"agreements": (agreed,)}))
    assert title in text
    assert "<td>books, plays</td>" in text
    for said in ("0.43", "– <small>(−1.00 to 1.00)</small>", "0.19", "residual.10"):
        assert said in text


def test_the_summary_is_computed(made_up: Maker) -> None:
    said = summary(made_up(2))
    assert "Two models took part: smollm2-135m and gemma-3-270m." in said
    assert "2 of 2 directions" in said
    assert "smollm2-135m into gemma-3-270m, kept 96\N{NO-BREAK SPACE}%" in said
