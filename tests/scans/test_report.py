"""The report: its data, its size, and the page in a real browser."""

import json
import re
from dataclasses import replace

import browser as web
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import Browser

from ilo_fast import scan
from ilo_fast.errors import InputError
from ilo_fast.results import SCORES
from ilo_fast.scans.dataset import Dataset
from ilo_fast.scans.failures import Failure
from ilo_fast.scans.jobs import Cell, Job
from ilo_fast.scans.report import report_data, write_report
from ilo_fast.scans.tables import SCHEMAS, to_bytes
from ilo_fast.scans.view import View

EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
FORMULA = "=1+2"


def fake_job(model, revision="", corpus="flores", pool="mean"):
    slot = f"{abs(hash((model, revision, corpus, pool))):032x}"
    cell = Cell("cosine", slot, "0" * 32, {"corpus": "c"})
    options = {"k": 5, "threshold": 3, "pool": pool, "dtype": "auto", "keep_neighbors": False}
    return Job(
        model, revision, corpus, model, "hub", None, False, {}, "c", options, (cell,), cell.slot,
        cell.key, 0,
    )  # fmt: skip


def fake_results(folder, jobs, layers, languages, neighbors=0):
    """Random results of these jobs, as many layers and languages as asked for."""
    random = np.random.default_rng(0)
    names = [f"lng{n:02d}_Latn" for n in range(languages)]
    sentences = neighbors // languages or 997
    search = {"layer": 0, "backend": "torch", "certified": 1.0, "method": "filter",
              "rows_repaired": 0.0, "open_candidates": 5.1, "duplicates": 3}  # fmt: skip
    with Dataset(folder, create=True) as dataset:
        for job in jobs:
            place = {"model": job.model, "revision": job.revision, "corpus": job.corpus}
            how = {"dtype": "bfloat16", "metric": "cosine", "k": 5, "threshold": 3}
            how["pool"] = job.options["pool"]
            shares = random.random((len(SCORES), layers * languages)).round(9)
            scores = pd.DataFrame(
                {
                    **place, **how, "layer": np.repeat(np.arange(layers), languages),
                    "language": names * layers, "n_points": sentences, "reach_count": 30,
                    **dict(zip(SCORES, shares, strict=True)), "certified": 1.0, "key": "0" * 32,
                }
            )  # fmt: skip
            means = scores.groupby("layer")[list(SCORES)].mean().reset_index()
            for score in SCORES:
                means[f"{score}_low"], means[f"{score}_high"] = (
                    means[score] - 0.1,
                    means[score] + 0.1,
                )
            for column, value in {**place, **how, "layers": layers - 1, "languages": languages,
                                  "n_points": sentences * languages, "certified": 1.0,
                                  "ilo_null": 0.9, "ilo_null_sd": 0.01, "ilo_p": 1.0,
                                  "ilo_p_lower": 0.01, "key": "0" * 32}.items():  # fmt: skip
                means[column] = value
            record = {
                "finished": "2026-01-01T00:00:00+00:00", "model": {"n_layers": layers - 1},
                "device": {"name": EVIL}, "timeline": {"extract": 30.0},
                "neighbours": [search] * layers, "corpus": {"languages": names},
            }  # fmt: skip
            tables = {
                "scores": to_bytes("scores", scores, job.cells[0], record),
                "layers": to_bytes("layers", means, job.cells[0], {}),
            }
            if neighbors:
                lists = list(
                    np.argsort(random.random((neighbors, neighbors)))[:, :5].astype("int32")
                )
                rows = pd.DataFrame(
                    {**place, **how, "layer": np.repeat(np.arange(layers), neighbors),
                     "point": np.tile(np.arange(neighbors), layers), "neighbors": lists * layers,
                     "key": "0" * 32}
                )  # fmt: skip
                tables["neighbors"] = to_bytes("neighbors", rows, job.cells[0], {})
            dataset.write(job, job.cells[0], tables)
        dataset.write_failure(fake_job(EVIL), Failure("gated", f"{EVIL} is gated"), 1.0)
    assert set(scores.columns) <= set(SCHEMAS["scores"].names)


def test_data_of_a_report(tmp_path):
    jobs = [fake_job("a", "r10"), fake_job("a", "r9"), fake_job("b")]
    fake_results(tmp_path / "out", jobs, 3, 4, neighbors=12)
    data = report_data(tmp_path / "out")
    names = [(cell["model"], cell["revision"]) for cell in data["cells"]]
    assert names == [("a", "r9"), ("a", "r10"), ("b", "")]
    cell = data["cells"][0]
    heat = np.array(cell["heat"]["ilo"])
    assert heat.shape == (3, 4)
    np.testing.assert_allclose(cell["curves"]["ilo"]["mean"], heat.mean(axis=1), atol=1e-4)
    assert cell["curves"]["ilo"]["null"] == [0.9] * 3
    assert cell["points"] == 4 * 3
    (overlap,) = data["overlaps"]
    assert overlap["models"] == ["a@r9", "a@r10", "b"]
    assert overlap["values"][0][0] == 1.0
    assert overlap["values"][0][1] == overlap["values"][1][0]
    assert overlap["chance"] == round(5 / 11, 6)
    assert data["failures"][0]["kind"] == "gated"


def test_the_peak_is_that_of_all_digits(tmp_path):
    fake_results(tmp_path / "out", [fake_job("a")], 3, 4)
    (path,) = (tmp_path / "out" / "scores").rglob("*.parquet")
    table = pq.read_table(path)
    rising = pa.array([0.5 + 1e-6 * layer for layer in table["layer"].to_pylist()])
    place = table.schema.get_field_index("ilo")
    pq.write_table(table.set_column(place, table.schema.field("ilo"), rising), path)
    assert report_data(tmp_path / "out")["cells"][0]["peak"] == 2


def test_results_of_one_model_are_told_apart(models, corpus_folder, tmp_path):
    model, text = str(models / "step9"), {"corpus": str(corpus_folder), "limit": 5}
    entries = [
        {"model": model, "name": "m"} | more for more in ({}, {"threshold": 1}, {"pool": "last"})
    ]
    defaults = {"k": 3, "threshold": 2, "intervals": 0, "permutations": 0, "keep_neighbors": True}
    plan = {"models": [*entries, {"model": model, "name": "n"}], "corpora": [text]}
    scan({**plan, "defaults": defaults}, results=tmp_path / "out", view=View())
    (overlap,) = report_data(tmp_path / "out")["overlaps"]
    assert sorted(overlap["models"]) == [
        "m, threshold=1, mean", "m, threshold=2, last", "m, threshold=2, mean", "n"
    ]  # fmt: skip


def test_layers_of_another_key_are_not_drawn(tmp_path):
    fake_results(tmp_path / "out", [fake_job("a")], 3, 4)
    (path,) = (tmp_path / "out" / "scores").rglob("*.parquet")
    (tmp_path / "out" / "layers" / path.relative_to(tmp_path / "out" / "scores")).unlink()
    assert list(report_data(tmp_path / "out")["cells"][0]["curves"]["ilo"]) == ["mean"]


def test_neighbors_of_another_key_are_not_compared(tmp_path):
    jobs = [fake_job("a"), fake_job("b")]
    fake_results(tmp_path / "out", jobs, 3, 4, neighbors=12)
    cell = replace(jobs[0].cells[0], key="1" * 32)  # as of a scan that was stopped in between
    with Dataset(tmp_path / "out") as dataset:
        path = dataset.path("neighbors", jobs[0], cell.slot)
        path.write_bytes(to_bytes("neighbors", pd.read_parquet(path), cell, {}))
    assert report_data(tmp_path / "out")["overlaps"] == []


def test_a_folder_without_anything(tmp_path):
    with Dataset(tmp_path / "out", create=True):
        pass
    with pytest.raises(InputError, match="no result and no failure"):
        write_report(tmp_path / "out", tmp_path / "r.html")
    with pytest.raises(InputError, match="holds no results of a scan"):
        write_report(tmp_path, tmp_path / "r.html")


@pytest.fixture(scope="module")
def fifty(tmp_path_factory):
    """A page of 50 models of 33 layers × 31 languages, with names that would break out."""
    folder = tmp_path_factory.mktemp("fifty")
    names = [EVIL, FORMULA, *(f"org/model-{n}" for n in range(2, 50))]
    jobs = [fake_job(name, corpus="demo" if n == 5 else "flores") for n, name in enumerate(names)]
    fake_results(folder / "out", jobs, 33, 31)
    return write_report(folder / "out", folder / "report.html", title=EVIL)


def test_fifty_models_fit_in_five_megabytes(fifty):
    assert fifty.stat().st_size < 5e6
    assert [path.name for path in fifty.parent.iterdir() if path.name.endswith(".part")] == []


def test_nothing_escapes_and_nothing_is_fetched(fifty):
    text = fifty.read_text(encoding="utf-8")
    assert text.count("</script>") == 2  # the data's and the page's own
    assert 'onerror="document' not in text
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(embedded.group(1))["title"] == EVIL


def rows(page, table="models-table"):
    return page.run(
        f"return [...document.querySelectorAll('#{table} tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )


def click(page, name):
    page.run(
        "[...document.querySelectorAll('#models-table th button')]"
        f".find(b => b.textContent.startsWith('{name}')).click()"
    )


CAPTURE = """
window.saved = [];
const real = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  blob.text().then((text) => window.saved.push(text));
  return real(blob);
};
"""


@pytest.mark.skipif(bool(web.missing()), reason=web.missing() or "no browser")
def test_the_page_in_a_browser(fifty):
    with Browser() as page:
        page.open(fifty)
        # It loads without errors, and what is hostile in it stays text.
        assert page.run("return document.title") == EVIL
        assert page.run("return document.querySelectorAll('main img').length") == 0
        assert "50 models · 2 corpora · 50 results · 1 failure" in page.run(
            "return document.getElementById('summary').textContent"
        )
        shown = rows(page)
        assert len(shown) == 50
        assert EVIL in [row[1] for row in shown]
        # Sorting: by a number, largest first, then smallest; by text as people count.
        for descending in (True, False):
            click(page, "peak ILO")
            peaks = [float(row[5]) for row in rows(page)]
            assert peaks == sorted(peaks, reverse=descending)
        click(page, "model")
        names = [row[1] for row in rows(page)]
        assert names.index("org/model-9") < names.index("org/model-10")
        # Curves: 8 drawn, one more when ticked, fewer when filtered.
        lines = "return document.querySelectorAll('#curve-figure path.line').length"
        assert page.run(lines) == 8
        page.run(
            "[...document.querySelectorAll('#models-table input')].find(b => !b.checked).click()"
        )
        assert page.run(lines) == 9
        bands = "return document.querySelectorAll('#curve-figure path.band').length"
        assert page.run(bands) == 9
        nulls = "return document.querySelectorAll('#curve-figure path.null').length"
        assert page.run(nulls) == 9
        page.run(
            "const f = document.getElementById('find'); f.value = 'model-7 flores';"
            "f.dispatchEvent(new Event('input'))"
        )
        assert [row[1] for row in rows(page)] == ["org/model-7"]
        page.run(
            "const f = document.getElementById('find'); f.value = '';"
            "const c = document.getElementById('corpus'); c.value = 'demo';"
            "c.dispatchEvent(new Event('change'))"
        )
        assert [row[1] for row in rows(page)] == ["org/model-5"]
        # The heat map is the model's that is left: 33 layers × 31 languages and the scale.
        cells = page.run("return document.querySelectorAll('#heat-figure rect').length")
        assert cells == 33 * 31 + 40
        # Every figure's data is one click away, and no cell of it is a formula.
        page.run(CAPTURE)
        page.run("document.querySelectorAll('[data-csv]').forEach(b => b.click())")
        page.run("const c = document.getElementById('corpus'); c.value = '';"
                 "c.dispatchEvent(new Event('change'));"
                 "document.querySelector('[data-csv=models]').click()")  # fmt: skip
        saved = page.call(
            "POST",
            "/execute/async",
            {"script": "setTimeout(() => arguments[0](window.saved), 300)", "args": []},
        )
        assert len(saved) == 7
        assert ",k,threshold,pool,dtype," in saved[-1].splitlines()[0]
        assert any(text.startswith("model,revision,corpus") for text in saved)
        assert any("layer,ilo_mean,ilo_low,ilo_high,ilo_null" in text for text in saved)
        assert sum(len(text.splitlines()) == 33 * 31 + 1 for text in saved) == 1
        assert "\n'=1+2," in saved[-1]
        # Dark by the system's wish, light by the button.
        colour = "return getComputedStyle(document.body).backgroundColor"
        page.prefer("light")
        light = page.run(colour)
        page.prefer("dark")
        dark = page.run(colour)
        assert light != dark
        page.run("document.getElementById('theme').click()")
        assert page.run(colour) == light
        # Records open on demand, as text.
        page.run("document.querySelector('#record-list details').open = true")
        assert page.console() == []
