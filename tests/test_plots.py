"""The pictures hold the table's numbers, whatever its size; how they look is checked by eye."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tables import make_result

from ilo_fast import plots
from ilo_fast.compare import compare
from ilo_fast.corpora.languages import PAPER_LANGUAGES, order_languages
from ilo_fast.errors import InputError
from ilo_fast.results import Result
from ilo_fast.sources import from_result


def curve(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line


def test_layer_curves_are_the_means():
    result = make_result(layers=19, languages=PAPER_LANGUAGES)
    ax = plots.layers(result)
    for column, label in (
        ("ilo", "ILO"),
        ("bridge", "bridge"),
        ("reach", "reach"),
        ("translation_hit", "translation hit"),
    ):
        x, y = curve(ax, label).get_data()
        means = result.table.pivot(index="layer", columns="language", values=column)
        np.testing.assert_array_equal(x, np.arange(19))
        np.testing.assert_allclose(y, means.to_numpy().mean(axis=1), rtol=1e-14)


def test_the_band_is_the_middle_of_the_languages():
    result = make_result(layers=4, languages=PAPER_LANGUAGES)
    (band,) = plots.layers(result).collections
    shares = result.table.pivot(index="layer", columns="language", values="ilo").to_numpy()
    expected = np.quantile(shares, [0.1, 0.9], axis=1)
    points = band.get_paths()[0].vertices
    for layer in range(4):
        found = points[points[:, 0] == layer, 1]
        assert found.min() == pytest.approx(expected[0, layer])
        assert found.max() == pytest.approx(expected[1, layer])


def test_heat_map_rows_are_ordered_languages():
    result = make_result(layers=33, languages=PAPER_LANGUAGES)
    ax = plots.languages(result, score="bridge")
    order = order_languages(PAPER_LANGUAGES)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert [label.split()[-1] for label in labels] == order
    grid = result.table.pivot(index="language", columns="layer", values="bridge").loc[order]
    np.testing.assert_array_equal(ax.images[0].get_array(), grid.to_numpy())


@pytest.mark.parametrize("layers", [1, 2, 19, 100])
@pytest.mark.parametrize("languages", [("a", "b"), PAPER_LANGUAGES])
def test_any_size_draws_with_whole_ticks(tmp_path, layers, languages):
    result = make_result(layers=layers, languages=languages)
    for draw in (plots.layers, plots.languages):
        ax = draw(result)
        path = plots.save(ax, tmp_path / "p.png", dpi=50)
        assert path.stat().st_size > 1000
        low, high = sorted(ax.get_xlim())
        ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)


def test_chosen_layers_keep_their_numbers():
    table = make_result(layers=9).table
    result = Result(table[table["layer"].isin([0, 4, 8])], {})
    labels = [text.get_text() for text in plots.languages(result).get_xticklabels()]
    assert labels == ["0", "4", "8"]


def test_title_names_model_and_corpus():
    title = plots.layers(make_result(model="org/name")).get_title(loc="left")
    assert title == "name, små\n3 languages × 40 sentences, cosine, k = 5, threshold 3"


def test_title_of_a_long_path_is_no_longer_than_its_settings():
    result = make_result(model="/data/checkpoints/" + "some-model-" * 8 + "final/")
    result.record["corpus"]["name"] = "sentences-" * 9
    for draw in (plots.layers, plots.languages):
        model, corpus = draw(result).get_title(loc="left").partition("\n")[0].split(", ")
        assert len(model) + len(", ") + len(corpus) == 54
        assert model.startswith("some-model-some")
        assert model.endswith("model-final")
        assert (corpus[:9], corpus[9], corpus[10:]) == ("sentences", "…", "sentences-")


def test_where_no_language_overlaps_no_layer_is_singled_out():
    result = make_result(layers=5)
    columns = ["bridge", "reach", "ilo", "translation_hit"]
    result.table[columns] = 0.0
    ax = plots.layers(result)
    names = {str(line.get_label()) for line in ax.get_lines()}
    assert names == {"ILO", "bridge", "reach", "translation hit"}
    for name in names:
        np.testing.assert_array_equal(curve(ax, name).get_ydata(), np.zeros(5))
    assert not ax.texts
    assert ax.get_title(loc="left").endswith("threshold 3")


def test_given_axes_are_drawn_on():
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2)
    assert plots.layers(make_result(), ax=left) is left
    assert plots.languages(make_result(), ax=right) is right


def test_bad_scores_and_models():
    with pytest.raises(InputError, match=r"score must be one of ilo, bridge.*got 'certified'"):
        plots.languages(make_result(), score="certified")
    both = pd.concat([make_result().table, make_result(model="other").table])
    for draw in (plots.layers, plots.languages):
        with pytest.raises(InputError, match="exactly one model"):
            draw(Result(both, {}))


def test_no_global_matplotlib_state():
    code = (
        "import sys; sys.path.insert(0, 'tests/support')\n"
        "from tables import make_result; from ilo_fast import plots\n"
        "plots.languages(make_result()); plots.layers(make_result())\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_lone_layer_has_a_band_and_a_null_that_can_be_seen():
    result = make_result(layers=1, languages=PAPER_LANGUAGES)
    scores = ("ilo", "bridge", "reach", "translation_hit")
    ends = {f"{score}_{end}": 0.5 for score in scores for end in ("low", "high")}
    metrics = pd.DataFrame([{"layer": 0, **ends, "ilo_low": 0.3, "ilo_high": 0.4, "ilo_null": 0.9}])
    spread, ax = plots.layers(result), plots.layers(result, metrics=metrics)
    for band in (spread.collections[0], ax.collections[0]):
        width, height = np.ptp(band.get_paths()[0].vertices, axis=0)
        assert width > 0.1
        assert height > 0
    null = curve(ax, "ILO, languages shuffled (mixed evenly)")
    assert np.ptp(null.get_xdata()) > 0.1
    np.testing.assert_array_equal(null.get_ydata(), 0.9)


def test_a_lone_layer_of_a_difference_has_a_band_that_can_be_seen():
    one, two = (make_result(layers=1, languages=PAPER_LANGUAGES, seed=seed) for seed in (0, 1))
    table = compare([from_result(one, "a"), from_result(two, "b")]).table
    band = plots.differences(table).collections[0]
    width, height = np.ptp(band.get_paths()[0].vertices, axis=0)
    assert width > 0.1
    assert height > 0
