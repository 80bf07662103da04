"""Pictures of neighbours, overlaps, maps and differences hold the numbers they are given."""

import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tables import make_result

from ilo_fast import plots
from ilo_fast.activations import ActivationStore
from ilo_fast.alignment import fragments, neighbor_counts
from ilo_fast.compare import compare
from ilo_fast.corpora.languages import PAPER_LANGUAGES, order_languages
from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.kept import list_rows
from ilo_fast.overlap import layer_overlap
from ilo_fast.pictures import picture
from ilo_fast.plane import pca, umap
from ilo_fast.results import Result
from ilo_fast.sources import from_result, from_store, read_sources
from ilo_fast.tables import write_table

LANGUAGES = ("eng_Latn", "rus_Cyrl", "deu_Latn")


def make_store():
    states = np.random.default_rng(0).normal(size=(3, 18, 5))
    return ActivationStore(
        torch.from_numpy(states.astype(np.float32)),
        (0, 1, 2),
        LANGUAGES,
        np.repeat(np.arange(3), 6),
        np.tile(np.arange(6), 3),
        {"pool": "mean"},
    )


def drawn(ax):
    return np.asarray(ax.images[0].get_array())


# ---------------------------------------------------------------- principal components


@pytest.mark.parametrize(("n", "d"), [(9, 4), (4, 9), (6, 6)])
def test_pca_is_that_of_a_plain_decomposition(n, d):
    states = np.random.default_rng(n).normal(size=(n, d))
    points, shares = pca(states, normalise=False)
    centred = states - states.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * sizes[:2]), atol=1e-10)
    np.testing.assert_allclose(shares, sizes[:2] ** 2 / (sizes**2).sum(), atol=1e-12)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


def test_pca_of_equal_lengths_sees_directions_only():
    states = np.random.default_rng(0).normal(size=(8, 5))
    scaled = states * np.arange(1, 9)[:, None]
    np.testing.assert_allclose(pca(states)[0], pca(scaled)[0], atol=1e-12)


def test_pca_of_one_spot_is_zero():
    points, shares = pca(np.ones((4, 3)))
    np.testing.assert_allclose(points, 0, atol=1e-7)
    np.testing.assert_allclose(shares, 0, atol=1e-7)


@pytest.mark.parametrize("bad", [np.ones((3, 1)), np.ones((1, 3)), np.ones((2, 3, 4))])
def test_pca_needs_one_layer_of_two_dimensions(bad):
    with pytest.raises(InputError, match="states must be one layer"):
        pca(bad)


def test_pca_names_what_is_not_finite():
    states = np.ones((4, 3))
    states[2, 1] = np.nan
    with pytest.raises(HiddenStateError, match="row 2"):
        pca(states)


def test_umap_says_what_it_needs(monkeypatch):
    states = np.random.default_rng(0).normal(size=(40, 5))
    with pytest.raises(InputError, match="metric must be"):
        umap(states, metric="inner_product")
    with pytest.raises(InputError, match="at least 3 points"):
        umap(states[:2])
    monkeypatch.setitem(sys.modules, "umap", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install 'ilo-fast\[umap\]'"):
        umap(states)


@pytest.mark.adapters
def test_umap_places_every_point_the_same_way_twice():
    pytest.importorskip("umap", reason="needs umap-learn: make test-adapters")
    states = np.random.default_rng(0).normal(size=(40, 5))
    points = umap(states)
    assert points.shape == (40, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points, umap(states))


# ---------------------------------------------------------------- neighbours and overlap


def test_neighbour_map_shows_shares_by_row_in_order():
    counts = np.array([[6, 2, 2], [0, 10, 0], [5, 0, 5]])
    ax = plots.neighbors(counts, LANGUAGES, title="here")
    order = order_languages(LANGUAGES)
    assert order == ["eng_Latn", "deu_Latn", "rus_Cyrl"]
    np.testing.assert_allclose(
        drawn(ax), [[0.6, 0.2, 0.2], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], atol=1e-15
    )
    assert [text.get_text().split()[-1] for text in ax.get_yticklabels()] == order
    assert [text.get_text() for text in ax.get_xticklabels()] == order
    assert ax.get_title(loc="left") == "here"


@pytest.mark.parametrize("counts", [np.ones((2, 2)), np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_neighbour_counts_that_cannot_be_drawn(counts):
    with pytest.raises(InputError, match="counts must"):
        plots.neighbors(counts, LANGUAGES)


def test_overlap_shows_the_matrix_and_the_best_of_each_row():
    values = np.array([[0.1, 0.9, 0.2], [0.3, 0.2, 0.25]])
    ax = plots.overlap(values, ((0, 5), (0, 4, 8)), names=("one", "two"), chance=0.01)
    np.testing.assert_array_equal(drawn(ax), values)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[1, 0], [0, 1]])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "4", "8"]
    assert ax.get_ylabel() == "layer of one"
    assert ax.get_title(loc="left") == (
        "share of neighbours in common\nunrelated lists: 0.01; dots: each row's best match"
    )
    ax = plots.overlap(np.eye(2), ((0, 1), (0, 1)), k=7, metric="euclidean")
    assert ax.get_title(loc="left") == "share of neighbours in common: euclidean, k = 7"
    with pytest.raises(InputError, match=r"\[1, 3\], got \[2, 3\]"):
        plots.overlap(values, ((0,), (0, 4, 8)))


@pytest.mark.parametrize("known", [0.3, np.nan])
def test_overlap_leaves_nan_out(known):
    values = np.array([[np.nan, known], [0.1, np.nan]])
    ax = plots.overlap(values, ((0, 1), (0, 1)), names=("one", "two"))
    ax.figure.canvas.draw()
    np.testing.assert_array_equal(np.ma.filled(ax.images[0].get_array(), np.nan), values)
    assert ax.collections[0].get_offsets()[1].tolist() == [0, 1]
    assert np.isnan(known) or ax.collections[0].get_offsets()[0].tolist() == [1, 0]


# ---------------------------------------------------------------- maps


def test_maps_hold_every_point_by_part_and_by_language():
    points = np.random.default_rng(0).normal(size=(9, 2))
    labels = [code for code in LANGUAGES for _ in range(3)]
    bridges = np.arange(9) % 3 == 0
    left, right = plots.plane(points, labels, bridges, title="t", axis_names=("x", "y"))
    fragmented, interlingual = (part.get_offsets() for part in left.collections)
    np.testing.assert_array_equal(fragmented, points[~bridges])
    np.testing.assert_array_equal(interlingual, points[bridges])
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "fragmented, 66.7 %",
        "interlingual, 33.3 %",
    ]
    shown = right.collections
    assert len(shown) == 6
    np.testing.assert_array_equal(shown[0].get_offsets(), points[:3])
    np.testing.assert_allclose(shown[1].get_offsets()[0], np.median(points[:3], axis=0))
    names = [text.get_text() for text in right.texts if text.get_text()]
    assert names == ["English", "German", "Russian"]
    groups = [text.get_text() for text in right.get_legend().get_texts()]
    assert groups == ["Germanic", "others"]


def test_languages_without_a_known_family_are_said_to_be():
    codes = [*LANGUAGES, "xx", "yy"]
    points = np.random.default_rng(0).normal(size=(10, 2))
    legend = plots.plane_languages(points, codes * 2).get_legend()
    groups = [text.get_text() for text in legend.get_texts()]
    assert groups == ["Germanic", "family unknown", "others"]


def test_the_legend_shows_the_small_groups_with_their_shapes():
    codes = ["eng_Latn", "deu_Latn", "rus_Cyrl", "ell_Grek"]  # the last two are alone in theirs
    ax = plots.plane_languages(np.random.default_rng(0).normal(size=(4, 2)), codes)
    ax.figure.canvas.draw()
    shown = [
        (line.get_marker(), line.get_color())
        for line in ax.get_legend().findobj(Line2D)
        if line.get_marker() not in ("", "None", None)
    ]
    colour = next(colour for _, colour in shown if colour != "#FFFFFF")
    assert shown == [("o", colour), ("o", "#FFFFFF"), ("s", "#FFFFFF")]


def test_31_languages_have_31_different_marks():
    labels = list(PAPER_LANGUAGES)
    ax = plots.plane_languages(np.random.default_rng(0).normal(size=(31, 2)), labels)
    medians = ax.collections[1::2]
    marks = {
        (tuple(part.get_facecolor()[0]), part.get_paths()[0].vertices.tobytes()) for part in medians
    }
    assert len(medians) == len(marks) == 31


def test_points_that_cannot_be_mapped():
    for bad in (np.ones((2, 2)), np.ones((3, 3)), np.full((3, 2), np.inf)):
        with pytest.raises(InputError, match=r"points must be finite numbers \[n, 2\]"):
            plots.plane_parts(bad, [True, False, True])


# ---------------------------------------------------------------- differences


@pytest.fixture(scope="module")
def differing():
    inputs = [
        from_result(make_result(layers=4, languages=PAPER_LANGUAGES, seed=seed), name)
        for seed, name in enumerate("ab")
    ]
    return compare(inputs, samples=50)


def test_difference_curves_and_bands(differing):
    rows = differing.of("a", "b")
    ax = plots.differences(rows)
    curves = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    chosen = rows[(rows["kind"] == "all") & (rows["score"] == "reach")]
    np.testing.assert_allclose(curves["reach"], chosen["difference"])
    low, high = ax.get_ylim()
    assert low < rows[rows["kind"] == "all"]["low"].min()
    assert high > rows[rows["kind"] == "all"]["high"].max()
    assert "b minus a" in ax.get_title(loc="left")
    assert "cosine, k = 5, threshold 3" in ax.get_title(loc="left")
    with pytest.raises(InputError, match="group must be one of"):
        plots.differences(rows, group="Klingon")


def test_group_differences_have_signs_where_the_interval_leaves_out_zero(differing):
    rows = differing.of("a", "b")
    ax = plots.group_differences(rows, by="script", score="bridge")
    chosen = rows[rows["kind"].isin(["all", "script"]) & (rows["score"] == "bridge")]
    grid = chosen.pivot(index="group", columns="layer", values="difference")
    np.testing.assert_allclose(drawn(ax), grid.loc[chosen["group"].unique()])
    signs = [text.get_text() for text in ax.texts]
    assert signs.count("+") == (chosen["low"] > 0).sum()
    assert signs.count("−") == (chosen["high"] < 0).sum()
    assert "cosine, k = 5, threshold 3" in ax.get_title(loc="left")
    with pytest.raises(InputError, match="got 'continent'"):
        plots.group_differences(rows, by="continent")


def test_rows_of_several_pairs_are_refused(differing):
    rows = differing.table.assign(b=np.arange(len(differing.table)) % 2)
    with pytest.raises(InputError, match="rows must be of one pair, got 2"):
        plots.differences(rows)


# ---------------------------------------------------------------- curves with companions


def test_layer_curves_take_bands_and_null_from_the_companions():
    result = make_result(layers=3, languages=LANGUAGES)
    means = result.layers()
    metrics = pd.DataFrame({"layer": [0, 1, 2], "ilo_null": [0.9, 0.8, 0.7]})
    for score in ("ilo", "bridge", "reach", "translation_hit"):
        metrics[f"{score}_low"] = means[score] - 0.05
        metrics[f"{score}_high"] = means[score] + 0.05
    ax = plots.layers(result, metrics=metrics)
    assert len(ax.collections) == 4
    (null,) = (line for line in ax.get_lines() if "shuffled" in str(line.get_label()))
    np.testing.assert_allclose(null.get_ydata(), [0.9, 0.8, 0.7])
    vertices = ax.collections[0].get_paths()[0].vertices
    assert vertices[:, 1].max() == pytest.approx(means["ilo"].max() + 0.05)


# ---------------------------------------------------------------- what is drawn of a source


def test_pictures_of_a_source_are_of_its_lists_and_states():
    source = from_store(make_store(), "mine", k=4, threshold=1)
    best = int(source.values["ilo"].mean(axis=1).argmax())
    ax = picture(source, "neighbours", layer=2)
    counts = neighbor_counts(source.lists[2], source.language_ids)[0]
    order = [0, 2, 1]
    expected = (counts / counts.sum(axis=1, keepdims=True))[np.ix_(order, order)]
    np.testing.assert_allclose(drawn(ax), expected)
    np.testing.assert_allclose(
        drawn(picture(source, "overlap")), layer_overlap(source.lists).values
    )
    assert picture(source, "overlap").get_title(loc="left") == (
        "share of neighbours in common: cosine, k = 4\nunrelated lists: 0.24"
    )
    assert ax.get_title(loc="left") == (
        "mine, layer 2\ncosine, k = 4; neighbours spread evenly: 33 % each"
    )
    ax = picture(source, "map")
    assert ax.get_title(loc="left") == f"mine, layer {best}\ncosine, k = 4, threshold 1"
    bridges = fragments(source.lists[best], source.language_ids, threshold=1).bridges[0]
    assert len(ax.collections[1].get_offsets()) == bridges.sum()
    np.testing.assert_allclose(
        drawn(picture(source, "languages", score="reach")), source.values["reach"][:, order].T
    )
    assert isinstance(picture(source, "layers").figure, Figure)


def test_layers_stored_in_another_order_are_ascending_in_a_source():
    store = make_store()
    turned = replace(store, states=store.states[[2, 0, 1]], layers=(2, 0, 1))
    straight, source = (from_store(one, "mine", k=4, threshold=1) for one in (store, turned))
    assert source.layers == (0, 1, 2)
    np.testing.assert_array_equal(source.lists, straight.lists)
    np.testing.assert_array_equal(source.values["ilo"], straight.values["ilo"])
    for layer in source.layers:
        ours, theirs = (picture(one, "map", layer=layer) for one in (source, straight))
        for mine, other in zip(ours.collections, theirs.collections, strict=True):
            np.testing.assert_array_equal(mine.get_offsets(), other.get_offsets())


@pytest.mark.parametrize("length", [37, 38, 39, 200])
def test_long_names_lose_their_middle(length):
    name = "".join(str(at % 10) for at in range(length))
    ax = picture(from_store(make_store(), name, k=4, threshold=1), "neighbours", layer=2)
    shown = ax.get_title(loc="left").partition(", layer")[0]
    assert len(shown) == min(length, 38)
    assert shown == name or (shown[:18], shown[-19:], shown[18]) == (name[:18], name[-19:], "…")


def test_a_long_name_stays_above_its_own_map():
    ax = picture(from_store(make_store(), "model-" * 20, k=4, threshold=1), "map", layer=2)
    ax.figure.canvas.draw()
    left, right = ax.figure.axes
    title = left._left_title.get_window_extent()
    assert title.x1 < right.get_window_extent().x0
    assert title.y1 < ax.figure.bbox.y1


def test_paths_lose_their_folders():
    path = "/data/checkpoints/of-the-third-training-that-went-well/step-100000/model/"
    source = from_store(make_store(), path, k=4, threshold=1)
    for kind in ("neighbours", "map"):
        shown = picture(source, kind, layer=2).get_title(loc="left")
        assert shown.startswith("model, layer 2\n")
    ax = picture(source, "overlap")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer of model", "layer of model")
    rows = compare([from_result(make_result(seed=at), path) for at in (0, 1)], samples=20).table
    assert (
        plots.differences(rows.assign(a="old/model", b="new/one"))
        .get_title(loc="left")
        .startswith("one minus model\n")
    )


def test_names_that_end_alike_say_which_is_which():
    rows = compare([from_result(make_result(seed=at), "x") for at in (0, 1)], samples=20).table
    rows = rows.assign(a="old/model", b="new/model")
    for draw in (plots.differences, plots.group_differences):
        assert "model (b) minus model (a)" in draw(rows).get_title(loc="left")
    ax = plots.overlap(np.eye(3), ((0, 1, 2),) * 2, names=("old/model", "new/model"))
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer of model (a)", "layer of model (b)")


def test_layers_are_taken_by_their_numbers():
    source = from_store(make_store(), "mine", k=4)
    for kind in ("map", "neighbours"):
        for layer in (-1, 3, 0.5, "1"):
            message = re.escape(f"layer must be one of [0, 1, 2], got {layer!r}")
            with pytest.raises(ValueError, match=message):
                picture(source, kind, layer=layer)


def test_pictures_that_cannot_be_drawn():
    [table] = from_result(make_result(), "mine")
    with pytest.raises(InputError, match="kind must be one of layers, languages"):
        picture(table, "pie")
    with pytest.raises(InputError, match="seed must be at least 0 and below 4294967296; got -1"):
        picture(table, "map", method="umap", seed=-1)
    with pytest.raises(InputError, match="method must be one of pca, umap"):
        picture(table, "map", method="tsne")
    with pytest.raises(InputError, match="kind 'overlap' needs neighbour lists, which mine"):
        picture(table, "overlap")
    with pytest.raises(InputError, match="kind 'map' needs hidden states, which mine"):
        picture(table, "map")  # neighbour lists would not help
    source = from_store(make_store(), "mine")
    with pytest.raises(InputError, match=r"layer must be one of \[0, 1, 2\], got 7"):
        picture(source, "map", layer=7)


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path):
    """A results folder with its neighbour lists."""
    source = from_store(make_store(), "mine", k=4)
    result = source.result
    result.record["finished"] = "now"
    result.save(tmp_path / "mine", plots=False)
    rows = list_rows(source.lists, source.layers)
    write_table(rows, result.record, tmp_path / "mine", "neighbors", csv=False)
    return tmp_path / "mine"


@pytest.mark.parametrize("kind", ["layers", "neighbours", "overlap"])
def test_the_command_draws_a_results_folder(run, folder, tmp_path, kind):
    out = tmp_path / "deep" / "picture.png"
    code, shown, said = run("plot", folder, "--kind", kind, "--out", out)
    assert (code, said) == (0, "")
    peak = int(read_sources(folder)[0].values["ilo"].mean(axis=1).argmax())
    assert shown == f"Written to {out}{f' (layer {peak})' * (kind == 'neighbours')}\n"
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in out.parent.iterdir()] == ["picture.png"]


def test_a_step_of_a_training_is_drawn(run, tmp_path):
    """Of several in a table the one that is named, or the last."""
    scorings = {step: make_result(seed=step) for step in (0, 40)}
    whole = pd.concat([one.table.assign(step=step) for step, one in scorings.items()])
    Result(whole, {}).write_parquet(tmp_path / "alignment.parquet")
    for step, given in ((0, ("--step", 0)), (40, ("--step", 40)), (40, ())):
        out = tmp_path / "drawn.png"
        assert run("plot", tmp_path / "alignment.parquet", *given, "--out", out)[0] == 0
        drawn = plots.layers(Result(scorings[step].table.assign(step=step), {}))
        assert drawn.get_title(loc="left").splitlines()[0].endswith(f", step {step}")
        alone = plots.save(drawn, tmp_path / "alone.png")
        assert out.read_bytes() == alone.read_bytes(), (step, given)
    _, _, said = run(
        "plot", tmp_path / "alignment.parquet", "--step", 7, "--out", tmp_path / "x.png"
    )
    assert said.endswith("holds steps 0, 40, got 7\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "map"], "kind 'map' needs hidden states, which mine does not hold"),
        (["--kind", "neighbours", "--layer", "9"], "layer must be one of [0, 1, 2], got 9"),
        (["--layer", "1"], "--layer is for --kind neighbours or map, not layers"),
        (["--kind", "map", "--seed", "1"], "--seed is for --method umap, not pca"),
        (["--kind", "overlap", "--score", "ilo"], "--score is for --kind languages, not overlap"),
        (["--step", "3"], "holds steps none, got 3"),
        (["--out", "x.bmpx"], "must end in one of"),
    ],
)
def test_bad_input_is_one_line_and_no_picture(run, folder, tmp_path, arguments, message):
    out = tmp_path / "out" / "p.png"
    code, shown, said = run("plot", folder, "--out", out, *arguments)
    assert (code, shown) == (2, "")
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_neighbours_of_another_run_are_refused(run, folder, tmp_path):
    rows = list_rows(np.zeros((3, 18, 4), dtype=np.int64), (0, 1, 2))
    write_table(rows, {"finished": "before"}, folder, "neighbors", csv=False)
    code, _, said = run("plot", folder, "--kind", "overlap", "--out", tmp_path / "p.png")
    assert code == 2
    assert "is of another run than the scores beside it" in said


def test_neighbours_that_do_not_fit_are_refused(run, folder, tmp_path):
    rows = list_rows(np.zeros((2, 18, 4), dtype=np.int64), (0, 1))
    write_table(rows, {"finished": "now"}, folder, "neighbors", csv=False)
    code, _, said = run("plot", folder, "--kind", "overlap", "--out", tmp_path / "p.png")
    assert code == 2
    assert "must hold 4 neighbours of 18 points in each layer [0, 1, 2]" in said


def test_dollar_signs_in_names_are_no_mathematics(tmp_path):
    """Matplotlib would read $x_$ as a broken formula and draw nothing at all."""
    codes = ["a$x_$b", "c$x_$d", "eng_Latn"]
    points = np.random.default_rng(0).normal(size=(9, 2))
    name = "my $x_$ model"
    pair = (0, 1), (0, 1)
    axes = (
        plots.plane(points, codes * 3, [True] * 9, title=name)[0],
        plots.neighbors(np.ones((3, 3), dtype=int), codes, title=name),
        plots.overlap(np.eye(2), pair, names=(name, "other"), title=name),
    )
    for number, ax in enumerate(axes):
        plots.save(ax, tmp_path / f"{number}.svg")
        assert ax.get_title(loc="left") == r"my \$x_\$ model"
    for kind in ("layers", "languages"):
        result = make_result(2, codes, model=name)
        plots.save(getattr(plots, kind)(result), tmp_path / f"{kind}.svg")
