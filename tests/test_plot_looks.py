"""The pictures can be read: nothing lies on anything else, in colour, in grey or colour-blind."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps, image
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from tables import make_result

from ilo_fast import plots
from ilo_fast.compare import compare
from ilo_fast.corpora.languages import PAPER_LANGUAGES, language
from ilo_fast.plots.style import CURVES, curve_style
from ilo_fast.sources import from_result

# Machado, Oliveira, Fernandes 2009: how those without the green cones see linear RGB
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def linear(colours):
    rgb = np.array([to_rgb(colour) for colour in colours])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(colours):
    """CIE L* between 0 and 100, what is left of a colour in grey."""
    y = linear(colours) @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def with_intervals(layers=19):
    result = make_result(layers=layers, languages=PAPER_LANGUAGES)
    metrics = result.layers()[["layer"]].assign(ilo_null=0.99)
    for score in CURVES:
        metrics[f"{score}_low"] = result.layers()[score] - 0.05
        metrics[f"{score}_high"] = result.layers()[score] + 0.05
    return result, metrics


def cloud(languages=PAPER_LANGUAGES, sentences=20, spread=1.0, seed=0):
    random = np.random.default_rng(seed)
    middles = np.repeat(random.normal(size=(len(languages), 2)) * spread, sentences, axis=0)
    labels = [code for code in languages for _ in range(sentences)]
    return middles + random.normal(size=middles.shape), labels


def rows():
    inputs = [
        from_result(make_result(layers=31, languages=PAPER_LANGUAGES, seed=seed), name)
        for seed, name in enumerate(("one-model", "another-model"))
    ]
    return compare(inputs, samples=20).table


PICTURES = {
    "layers": lambda: plots.layers(make_result(layers=19, languages=PAPER_LANGUAGES)),
    "layers with intervals": lambda: plots.layers(with_intervals()[0], metrics=with_intervals()[1]),
    "many layers": lambda: plots.layers(make_result(layers=101, languages=PAPER_LANGUAGES)),
    "languages": lambda: plots.languages(make_result(layers=19, languages=PAPER_LANGUAGES)),
    "two languages": lambda: plots.languages(make_result(layers=3, languages=PAPER_LANGUAGES[:2])),
    "many languages": lambda: plots.languages(
        make_result(layers=101, languages=[f"l{number:03}_Latn" for number in range(204)])
    ),
    "neighbours": lambda: plots.neighbors(np.eye(31) + 0.1, PAPER_LANGUAGES, title="a\nb"),
    "overlap": lambda: plots.overlap(
        np.random.default_rng(0).random((19, 31)), (range(19), range(31)), names=("a", "b")
    ),
    "differences": lambda: plots.differences(rows()),
    "group differences": lambda: plots.group_differences(rows(), by="language"),
}


pytestmark = pytest.mark.xdist_group("pictures")  # one process draws each


@pytest.fixture(scope="module", params=PICTURES, ids=lambda name: name.replace(" ", "-"))
def picture(request):
    ax = PICTURES[request.param]()
    ax.figure.canvas.draw()
    return ax


def boxes(texts):
    return [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]


def inner(box, margin=0.5):
    return box.padded(-margin)


def test_tick_labels_keep_apart(picture):
    for axis in (picture.xaxis, picture.yaxis):
        found = boxes(axis.get_ticklabels())
        low, high = sorted(axis.get_view_interval())
        inside = [
            box for box, at in zip(found, axis.get_ticklocs(), strict=False) if low <= at <= high
        ]
        assert len(inside) > 1
        for one, two in combinations(inside, 2):
            assert not inner(one).overlaps(two)


def test_tick_labels_are_not_small(picture):
    labels = [*picture.get_xticklabels(), *picture.get_yticklabels()]
    assert min(text.get_fontsize() for text in labels) >= 7.5


def test_titles_names_and_legends_lie_outside_the_data(picture):
    data = inner(picture.get_window_extent(), 1)
    around = [picture._left_title, picture.xaxis.label, picture.yaxis.label]
    found = boxes(text for text in around if text.get_text())
    legends = [child for child in picture.get_children() if type(child).__name__ == "Legend"]
    found += [legend.get_window_extent() for legend in legends]
    whole = picture.figure.get_tightbbox().transformed(picture.figure.dpi_scale_trans)
    for box in found:
        assert not box.overlaps(data)
        assert whole.padded(1).contains(box.x0, box.y0)
        assert whole.padded(1).contains(box.x1, box.y1)
    for one, two in combinations(found, 2):
        assert not inner(one).overlaps(two)


def test_every_axis_has_a_name(picture):
    assert picture.get_xlabel()
    assert picture.get_ylabel() or picture.images  # the rows of a heat map name themselves
    for bar in picture.child_axes:
        assert bar.get_ylabel()


def test_colour_bars_are_as_high_as_their_image(picture):
    assert len(picture.child_axes) == len(picture.images)
    for bar in picture.child_axes:
        there, here = picture.get_window_extent(), bar.get_window_extent()
        np.testing.assert_allclose([here.y0, here.y1], [there.y0, there.y1], atol=1)
        assert here.x0 > there.x1


# ---------------------------------------------------------------- curves in grey


def test_curves_differ_without_colour():
    marks = [curve_style(score, True) for score in CURVES]
    assert len({mark["linestyle"] for mark in marks}) == len(marks)
    assert len({mark["marker"] for mark in marks}) == len(marks)


def test_only_one_interval_is_a_band():
    result, metrics = with_intervals()
    ax = plots.layers(result, metrics=metrics)
    bands = [part for part in ax.collections if type(part).__name__ != "LineCollection"]
    assert len(bands) == 1
    bars = {
        tuple(part.get_colors()[0]): part.get_segments()
        for part in ax.collections
        if part not in bands
    }
    assert len(bars) == 3
    reach = np.array(bars[(*to_rgb(CURVES["reach"][1]), 1.0)])
    np.testing.assert_allclose(reach[:, 0, 1], metrics["reach_low"])
    np.testing.assert_allclose(reach[:, 1, 1], metrics["reach_high"])
    caps = [line for line in ax.get_lines() if line.get_marker() == "_"]
    ends = {tuple(line.get_ydata()) for line in caps}
    for score in ("bridge", "reach", "translation_hit"):
        assert {tuple(metrics[f"{score}_low"]), tuple(metrics[f"{score}_high"])} <= ends
    assert len(caps) == 6


@pytest.mark.parametrize("layers", [2, 19, 33, 40])
def test_bars_leave_markers_readable(layers):
    result, metrics = with_intervals(layers)
    ax = plots.layers(result, metrics=metrics)
    ax.figure.canvas.draw()
    curves = [line for line in ax.get_lines() if line.get_marker() not in ("_", "None")]
    assert len(curves) == 4
    bars = [part for part in ax.collections if type(part).__name__ == "LineCollection"]
    places = []
    for bar in bars:
        [curve] = [
            line for line in curves if line.get_color() == to_hex(bar.get_colors()[0]).upper()
        ]
        assert to_rgba(curve.get_markerfacecolor()) == (1, 1, 1, 1)
        assert curve.get_alpha() is None
        assert bar.get_zorder() < min(line.get_zorder() for line in curves)
        tops = bar.get_transform().transform([segment[1] for segment in bar.get_segments()])
        middles = ax.transData.transform(curve.get_xydata())
        aside = (tops - middles)[:, 0] * 72 / ax.figure.dpi
        np.testing.assert_allclose(aside, aside[0], atol=1e-9)
        places.append(aside[0])
        half_a_marker = (curve.get_markersize() + curve.get_markeredgewidth()) / 2
        # beside the marker, or behind its middle where the face covers it
        assert abs(aside[0]) < 1e-9 or abs(aside[0]) > half_a_marker + bar.get_linewidth()[0] / 2
    one_layer = np.diff(ax.transData.transform([[0, 0], [1, 0]])[:, 0])[0] * 72 / ax.figure.dpi
    assert max(places) - min(places) < one_layer  # never nearer to the next layer's
    assert np.diff(sorted(places)).min() > 2  # side by side, not on each other


# ---------------------------------------------------------------- heat maps in grey


@pytest.mark.parametrize("name", ["languages", "neighbours", "overlap"])
def test_more_is_lighter(name):
    image = PICTURES[name]().images[0]
    levels = image.norm.boundaries
    middles = (levels[1:] + levels[:-1]) / 2
    steps = np.diff(lightness(image.cmap(image.norm(middles))))
    assert steps.min() > 2


def test_colours_reach_as_far_as_an_overlap_does():
    table = np.full((3, 4), 0.1)
    table[0, 0] = 0.37
    for values, most in ((table, 0.4), (table + 0.2, 1.0), (np.eye(3), 1.0)):
        shape = (range(len(values)), range(len(values.T)))
        image = plots.overlap(values, shape, names=("a", "b")).images[0]
        assert image.norm.vmax == pytest.approx(most)
        assert image.norm.vmin == 0


def test_differences_read_in_grey_by_their_signs():
    ax = plots.group_differences(rows(), by="script")
    shown = np.asarray(ax.images[0].get_array())
    colours = colormaps["PuOr_r"]
    assert lightness([colours(0.5)])[0] - max(lightness([colours(0.0), colours(1.0)])) > 40
    for text in ax.texts:
        column, row = (round(at) for at in text.get_position())
        assert (text.get_text() == "+") == (shown[row, column] > 0)
        under = lightness(ax.images[0].cmap(ax.images[0].norm(shown[[row], [column]])))[0]
        assert abs(under - lightness([text.get_color()])[0]) > 40


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_names_on_the_map_keep_apart(spread):
    points, labels = cloud(spread=spread)
    _, ax = plots.plane(points, labels, np.arange(len(points)) % 3 == 0, title="t")
    ax.figure.canvas.draw()
    names = [text for text in ax.texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == sorted(
        language(code).name for code in PAPER_LANGUAGES
    )
    found = [super(type(text), text).get_window_extent() for text in names]
    for one, two in combinations(found, 2):
        assert not inner(one).overlaps(two)
    room = ax.get_window_extent()
    medians = np.array(
        [np.median(points[np.array(labels) == code], axis=0) for code in PAPER_LANGUAGES]
    )
    for box in found:
        assert room.contains(box.x0, box.y0)
        assert room.contains(box.x1, box.y1)
        assert not any(box.contains(x, y) for x, y in ax.transData.transform(medians))


def test_a_far_name_has_a_line_to_its_mark():
    points, labels = cloud(PAPER_LANGUAGES[:12], spread=0.0)
    ax = plots.plane_languages(points, labels)
    lines = [text for text in ax.texts if text.arrow_patch is not None]
    medians = {
        tuple(np.median(points[np.array(labels) == code], axis=0).round(9))
        for code in PAPER_LANGUAGES[:12]
    }
    assert lines
    for line in lines:
        assert tuple(np.round(line.xy, 9)) in medians


def test_groups_on_the_map_differ_in_grey_and_without_green_cones():
    points, labels = cloud()
    ax = plots.plane_languages(points, labels)
    legend = ax.get_legend()
    colours = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert list(colours)[-1] == "others"
    large = ["Malayo-Polynesian", "Slavic", "Germanic", "Indo-Aryan"]
    light = np.sort(lightness([colours[name] for name in large]))
    assert np.diff(light).min() > 10
    seen = np.clip(linear(colours.values()) @ DEUTERANOPIA.T, 0, 1) ** (1 / 2.2)
    apart = [np.linalg.norm(one - two) for one, two in combinations(seen, 2)]
    assert min(apart) > 0.15


def test_many_languages_keep_their_marks_and_lose_their_names():
    codes = [f"l{number:03}_Latn" for number in range(204)]
    points, labels = cloud(codes, sentences=2)
    ax = plots.plane_languages(points, labels)
    assert not ax.texts
    assert len(ax.collections) == 2 * len(codes)


def test_the_smaller_part_is_drawn_on_the_larger():
    points, _ = cloud(("a", "b"))
    for few in (True, False):
        member = (np.arange(len(points)) % 4 == 0) == few
        fragmented, interlingual = plots.plane_parts(points, member).collections
        assert (interlingual.zorder > fragmented.zorder) == few


def test_scripts_and_families_are_parted():
    codes = ["ind_Latn", "dan_Latn", "deu_Latn", "fra_Latn", "rus_Cyrl"]
    ax = plots.languages(make_result(layers=3, languages=codes))
    lines = {line.get_ydata()[0]: line.get_linewidth() for line in ax.get_lines()}
    assert sorted(lines) == [0.5, 2.5, 3.5]  # nothing between Danish and German
    assert lines[3.5] > 2 * lines[0.5] == 2 * lines[2.5]


def test_overlap_of_a_table_draws_at_every_size():
    for shape in ((1, 1), (2, 101)):
        ax = plots.overlap(np.zeros(shape), tuple(range(size) for size in shape))
        assert isinstance(ax.images[0].norm.vmax, float)
        assert pd.notna(ax.images[0].norm.vmax)


def test_dots_in_boxes_are_counted_as_one_by_one():
    from ilo_fast.plots.labels import _count

    generator = np.random.default_rng(0)
    points = np.vstack([generator.normal(size=(300, 2)), [[np.nan, 0], [0.25, 0.25]]])
    low = np.vstack([generator.normal(size=(40, 2)), [[0.25, 0.25]]])
    high = low + generator.random((41, 2))
    inside = (points > low[:, None]) & (points < high[:, None])
    np.testing.assert_array_equal(_count(points, low, high), inside.all(axis=2).sum(axis=1))
    assert _count(np.zeros((0, 2)), low, high).tolist() == [0] * 41


@pytest.mark.parametrize("size", [(7, 2.6), (3.3, 2.4)])
def test_curves_fit_small_panels(size):
    figure = Figure(figsize=size, layout="constrained")
    for ax in figure.subplots(1, 2 if size[0] > 4 else 1, squeeze=False).flat:
        plots.layers(make_result(layers=31, languages=PAPER_LANGUAGES), ax=ax)
    figure.canvas.draw()
    for ax in figure.axes:
        legends = [box for box in ax.get_children() if isinstance(box, Legend)]
        low, high = ax.get_xlim()
        ticks = zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
        numbers = [text for text, at in ticks if low <= at <= high]
        found = boxes([*numbers, ax.xaxis.label]) + [box.get_window_extent() for box in legends]
        assert len(numbers) > 3
        for one, two in combinations(found, 2):
            assert not inner(one).overlaps(two)


@pytest.mark.parametrize("name", ["layers", "overlap"])
def test_figures_are_saved_whole_by_their_own_method(tmp_path, name):
    ax = PICTURES[name]()
    ours, theirs = plots.save(ax, tmp_path / "ours.png", dpi=100), tmp_path / "theirs.png"
    ax.figure.savefig(theirs, dpi=100)
    assert image.imread(theirs).shape == image.imread(ours).shape
    ax.figure.savefig(theirs, dpi=100, bbox_inches=None)
    assert image.imread(theirs).shape[1] == round(100 * ax.figure.get_figwidth())
