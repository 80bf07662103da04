"""Differences between results: what is compared, by how much, how surely, and what is refused."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_results import LANGUAGES, result, store, training
from tables import make_result

from ilo_fast import plots
from ilo_fast.compare import COLUMNS, compare
from ilo_fast.corpora.languages import order_languages
from ilo_fast.errors import InputError
from ilo_fast.finetune import score_change
from ilo_fast.groups import language_groups
from ilo_fast.kept import list_rows, lists_of
from ilo_fast.overlap import layer_overlap, mutual_knn
from ilo_fast.pairing import match_layers
from ilo_fast.results import SCORES, Result
from ilo_fast.sources import from_result, from_store, read_inputs
from ilo_fast.stored import score_states
from ilo_fast.tables import read_table, write_table


def of(found, kind, group, score="ilo"):
    table = found.table if isinstance(found.table, pd.DataFrame) else found
    rows = table[(table["kind"] == kind) & (table["group"] == group) & (table["score"] == score)]
    return rows.sort_values("layer")


# ---------------------------------------------------------------- groups and layers


def test_every_kind_of_group_holds_every_language_once():
    groups = language_groups([*LANGUAGES, "xx"])
    for kind in ("all", "script", "family", "branch", "language"):
        members = [code for group in groups if group.kind == kind for code in group.members]
        assert sorted(members) == sorted([*LANGUAGES, "xx"])
    assert len({group.key for group in groups}) == len(groups)
    branches = {group.name: group.members for group in groups if group.kind == "branch"}
    assert branches["Germanic"] == ("eng_Latn", "deu_Latn")
    assert branches["Sinitic"] == ("zho_Hans",)


def test_layers_match_by_number_or_by_relative_depth():
    [a], [b] = from_result(result(layers=5)), from_result(result(layers=5))
    assert match_layers(a, b) == [(at, at) for at in range(5)]
    [deep] = from_result(result(layers=9))
    assert match_layers(a, deep) == [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)]
    assert match_layers(deep, a)[:3] == [(0, 0), (1, 0), (2, 1)]  # halves go to the lower layer
    some = result(layers=5, record={"model": {"n_layers": 4}})
    some = Result(some.table[some.table["layer"].isin([1, 3])], some.record)
    assert match_layers(from_result(some)[0], b) == [(0, 1), (1, 3)]


# ---------------------------------------------------------------- differences of tables


def test_differences_are_b_minus_a_per_group_and_layer():
    found = compare([from_result(result(), "a"), from_result(result(0.125), "b")])
    assert list(found.table.columns) == list(COLUMNS)
    assert found.pairs() == [("a", "b")]
    made_with = found.table[["k", "threshold", "metric"]].drop_duplicates()
    assert made_with.values.tolist() == [[5, 3, "cosine"]]
    for score in SCORES:
        everything = of(found, "all", "all", score)
        assert everything["layer"].tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(everything["value_a"], [0.25, 0.5, 0.5, 0.5])
        np.testing.assert_allclose(everything["difference"], 0.125 * 2 / 5)
        np.testing.assert_allclose(of(found, "script", "Latn", score)["difference"], 0.125)
        np.testing.assert_allclose(of(found, "script", "Cyrl", score)["difference"], 0.0)
        np.testing.assert_allclose(of(found, "branch", "Germanic", score)["value_b"][1:], 0.625)
    assert set(found.table["over"]) == {"languages", "none"}
    alone = found.table[found.table["languages"] == 1]
    assert (alone["over"] == "none").all()
    assert alone[["low", "high"]].isna().all(axis=None)


def test_the_interval_over_languages_is_that_of_a_slow_loop():
    one, two = (
        make_result(layers=2, languages=LANGUAGES),
        make_result(layers=2, languages=LANGUAGES, seed=1),
    )
    found = compare([from_result(one), from_result(two)], samples=50, level=0.8, seed=3)
    order = [LANGUAGES.index(code) for code in order_languages(LANGUAGES)]  # that of the groups
    for layer in (0, 1):
        moved = (two.table["ilo"] - one.table["ilo"])[one.table["layer"] == layer].to_numpy()[order]
        counts = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), 50)
        means = [np.mean(np.repeat(moved, count)) for count in counts]
        row = of(found, "all", "all").iloc[layer]
        np.testing.assert_allclose(
            [row["low"], row["high"]], np.quantile(means, [0.1, 0.9]), atol=1e-12
        )
        assert row["difference"] == pytest.approx(moved.mean())


def test_languages_in_another_order_meet_by_name():
    turned = result(0.125, languages=LANGUAGES[::-1], record={})
    found = compare([from_result(result(record={})), from_result(turned)])
    np.testing.assert_allclose(of(found, "language", "deu_Latn")["difference"], 0.125)
    np.testing.assert_allclose(of(found, "language", "rus_Cyrl")["difference"], 0.0)


def test_several_inputs_are_each_compared_with_the_first_and_names_stay_apart():
    inputs = [from_result(result(shift)) for shift in (0, 0.1, 0.2)]
    found = compare(inputs)
    assert found.pairs() == [("tiny", "tiny (2)"), ("tiny", "tiny (3)")]
    last = found.of("tiny", "tiny (3)")
    np.testing.assert_allclose(of(found.__class__(last), "script", "Latn")["difference"], 0.2)


def test_models_of_different_depth_say_so():
    found = compare([from_result(result(layers=5), "a"), from_result(result(layers=9), "b")])
    assert of(found, "all", "all")["layer_b"].tolist() == [0, 2, 4, 6, 8]
    assert any("relative depth" in note for note in found.record["notes"])


def test_layers_that_meet_none_of_their_depth_are_named():
    some = result(layers=9, record={"model": {"n_layers": 8}})
    some = Result(some.table[some.table["layer"].isin([0, 2, 8])], some.record)
    found = compare([from_result(result(layers=5), "a"), from_result(some, "b")])
    assert of(found, "all", "all")["layer_b"].tolist() == [0, 2, 2, 8, 8]
    assert found.record["notes"][1] == (
        "b does not hold all its layers: 2, 3 of a met the nearest of 0, 2, 8, up to 25 % of the "
        "depth away"
    )
    whole = compare([from_result(some, "b"), from_result(result(layers=5), "a")])
    assert len([note for note in whole.record["notes"] if "depth" in note]) == 1


# ---------------------------------------------------------------- trainings


def test_a_training_is_compared_with_its_beginning():
    run = from_result(training({0: 0.0, 50: 0.1, 100: 0.25}), "run")
    found = compare([run])
    assert found.pairs() == [("run, step 0", "run, step 100")]
    assert (found.table["step_a"] == 0).all()
    assert (found.table["step_b"] == 100).all()
    np.testing.assert_allclose(of(found, "script", "Latn")["difference"], 0.25)
    part = compare([run], steps=(0, 50))
    np.testing.assert_allclose(of(part, "script", "Latn")["difference"], 0.1)


def test_two_trainings_give_their_changes_and_their_ends():
    inputs = [
        from_result(training({0: 0.0, 9: 0.1}), "full"),
        from_result(training({0: 0.0, 9: 0.3}), "frozen"),
    ]
    found = compare(inputs)
    assert found.pairs() == [
        ("full, step 0", "full, step 9"),
        ("frozen, step 0", "frozen, step 9"),
        ("full, step 9", "frozen, step 9"),
    ]
    ends = compare(inputs).of("full, step 9", "frozen, step 9")
    latin = ends[(ends["group"] == "Latn") & (ends["score"] == "ilo")]
    np.testing.assert_allclose(latin["difference"], 0.2)


def test_trainings_that_cannot_be_compared():
    run = from_result(training({0: 0.0, 9: 0.1}), "run")
    with pytest.raises(InputError, match="steps: run holds no step 5, it holds 0, 9"):
        compare([run], steps=(0, 5))
    with pytest.raises(InputError, match="steps must be two different ones"):
        compare([run], steps=(9, 9))
    with pytest.raises(InputError, match="at least two steps, it holds step 4 alone"):
        compare([from_result(training({4: 0.0}), "run")])
    with pytest.raises(InputError, match="none of the inputs is the table of a training"):
        compare([from_result(result()), from_result(result())], steps=(0, 1))


# ---------------------------------------------------------------- neighbours and states


def test_states_give_intervals_over_sentences_and_the_overlap():
    a, b = (
        from_store(store(scale=scale), name, threshold=2) for scale, name in ((1, "a"), (4, "b"))
    )
    found = compare([[a], [b]], samples=40, level=0.8, permutations=19, seed=5)
    labels = [LANGUAGES[number] for number in a.language_ids]
    expected = score_change(
        a.lists,
        [b.lists],
        labels,
        a.sentence_ids,
        groups={"Latn": ["eng_Latn", "deu_Latn"]},
        threshold=2,
        samples=40,
        level=0.8,
        seed=5,
    )
    for kind, group, key in (("all", "all", "all"), ("script", "Latn", "Latn")):
        for score in SCORES:
            rows, change = of(found, kind, group, score), expected[key][score]
            assert (rows["over"] == "sentences").all()
            np.testing.assert_allclose(rows["difference"], change.estimate, atol=1e-12)
            np.testing.assert_allclose(rows["low"], change.low, atol=1e-12)
            np.testing.assert_allclose(rows["high"], change.high, atol=1e-12)
    table = found.overlap_table()
    assert len(table) == 9
    for row in table.to_dict("records"):
        one = mutual_knn(a.lists[row["layer_a"]], b.lists[row["layer_b"]])[0]
        assert row["mutual_knn"] == pytest.approx(one)
        assert (row["a"], row["b"]) == ("a", "b")
    calibrated = layer_overlap(a.lists, b.lists, permutations=19, seed=5).calibration
    np.testing.assert_array_equal(table["p"], calibrated.p_value.ravel())
    np.testing.assert_array_equal(table["calibrated"], calibrated.score.ravel())


def test_lists_among_a_results_companions_give_intervals_over_sentences():
    """As those of its folder; from memory they were passed over."""
    results = [
        score_states(store(scale=scale), k=4, metrics="neighbors", name=name)
        for name, scale in (("a", 1.0), ("b", 4.0))
    ]
    stored = [
        [from_store(store(scale=scale), name, k=4)] for name, scale in (("a", 1.0), ("b", 4.0))
    ]
    found = compare([from_result(one) for one in results], samples=20)
    pd.testing.assert_frame_equal(found.table, compare(stored, samples=20).table)
    assert len(found.overlaps) == 1
    lists = results[0].companions["neighbors"]
    fewer = replace(results[0], companions={"neighbors": lists[lists["layer"] > 0]})
    with pytest.raises(InputError, match=r"a: companions\['neighbors'\] must hold 4 neighbours of"):
        from_result(fewer)


def test_what_is_no_list_of_sources_is_named():
    for inputs, got in ((["results"], "str"), ([[1]], "list"), ([result(), result()], "Result")):
        with pytest.raises(TypeError, match=rf"inputs\[0\] must be a list of .*; got {got}"):
            compare(inputs)


def test_the_same_states_do_not_differ():
    source = from_store(store(), "a")
    found = compare([[source], [source]], samples=10)
    assert (found.table[["difference", "low", "high"]] == 0).all(axis=None)
    np.testing.assert_array_equal(np.diag(found.overlaps[0].overlap.values), 1.0)


def test_a_result_made_of_states_holds_their_scores():
    source = from_store(store(), "a", k=4)
    [back] = from_result(source.result)
    for score in (*SCORES, "certified"):
        np.testing.assert_array_equal(back.values[score], source.values[score])
    assert back.settings["k"] == 4


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"k": 10}, "they differ in k: 5 and 10"),
        ({"metric": "euclidean"}, "they differ in metric: cosine and euclidean"),
        ({"threshold": 2}, "they differ in threshold: 3 and 2"),
        ({"n_points": 7}, "they differ in sentences: 40 and 7"),
        (
            {"languages": (*LANGUAGES[:4], "fra_Latn")},
            "they differ in languages: only the first has zho_Hans; only the second has fra_Latn",
        ),
        (
            {"record": {"corpus": {"name": "other", "sha256": "cd"}}},
            r"they differ in corpus: små \(5 languages × 40, sha256 ab…\) and other",
        ),
        ({"record": {"options": {"pool": "last"}}}, "they differ in pool: mean and last"),
    ],
)
def test_results_made_otherwise_are_refused(other, message):
    inputs = [from_result(result(), "a"), from_result(result(**other), "b")]
    with pytest.raises(InputError, match=f"a and b cannot be compared, {message}"):
        compare(inputs)


def test_permutations_want_lists_on_both_sides():
    table, states = from_result(result(), "a"), [from_store(store(), "b")]
    other = [from_store(store(1), "c")]
    for inputs in ([table, from_result(result(0.125))], [from_result(states[0].result), states]):
        with pytest.raises(InputError, match=r"permutations .* none of the pairs has them"):
            compare(inputs, permutations=9)
    inputs = [states, other, from_result(other[0].result, "d")]  # of one pair is enough
    assert "p" in compare(inputs, permutations=9, samples=5).overlap_table()


def test_kept_lists_are_read_from_rows_in_any_order():
    lists = np.array([[[1, 2], [2, 0], [0, 1]], [[2, 1], [0, 2], [1, 0]]])
    rows = list_rows(lists, [3, 0]).sample(frac=1, random_state=1)
    assert np.array_equal(lists_of(rows, [3, 0], 3, 2, "x"), lists)
    assert np.array_equal(lists_of(rows, [0, 3], 3, 2, "x"), lists[::-1])


def test_lists_of_points_in_another_order_are_refused():
    """Scores alone may stand in any order of languages; lists name points by their place."""
    a, turned = from_store(store(), "a"), from_store(store(1, LANGUAGES[::-1]), "b")
    with pytest.raises(InputError, match="a and b cannot be compared, their points are in another"):
        compare([[a], [turned]])
    found = compare([[a], from_result(turned.result, "b")], samples=5)
    here = a.values["ilo"] - turned.values["ilo"][:, ::-1]
    for place, code in enumerate(LANGUAGES):
        np.testing.assert_array_equal(of(found, "language", code)["difference"], -here[:, place])


def test_models_without_a_layer_in_common_are_refused():
    few = {"model": {"n_layers": 3}}
    parts = [
        Result(table[table["layer"].isin(kept)], few)
        for table, kept in ((result().table, [0, 1]), (result().table, [2, 3]))
    ]
    with pytest.raises(InputError, match=r"a and b have no layer in common: \[0, 1\] and \[2, 3\]"):
        compare([from_result(part, name) for part, name in zip(parts, "ab", strict=True)])


def test_another_dtype_is_noted():
    kinds = {"a": "float32", "b": "bfloat16", "c": "float32"}
    a, b, c = (
        from_result(result(record={"model": {"dtype": kind}, "corpus": {"sha256": "ab"}}), name)
        for name, kind in kinds.items()
    )
    assert compare([a, b], samples=5).record["notes"] == ["a ran in float32, b in bfloat16"]
    assert compare([a, c], samples=5).record["notes"] == []


def test_settings_given_must_be_those_of_the_tables(tmp_path):
    path = result().write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="k: a was scored with 5, 7 was asked for"):
        read_inputs([path], k=7)


# ---------------------------------------------------------------- files


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path):
    compared = compare([from_result(result(), "a"), from_result(result(0.125), "b")], samples=5)
    with pytest.raises(InputError, match=r"^folder: expected a name in UTF-8"):
        compared.save(tmp_path / "o\udcff")
    assert list(tmp_path.iterdir()) == []


def test_another_comparison_leaves_nothing_of_the_one_before(tmp_path):
    stores = [[from_store(store(seed), name)] for seed, name in enumerate("abc")]
    several = compare(stores, samples=5).save(tmp_path)
    assert {"differences-2.png", "groups-2.png", "overlap-2.png"} <= {p.name for p in several}
    mine = {"notes.txt", "overlap-old.png", "groups.svg"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    tables = [from_result(result(), "a"), from_result(result(0.125), "b")]
    one = compare(tables, samples=5).save(tmp_path)
    assert names_in(tmp_path) == sorted({path.name for path in one} | mine)
    assert {path.name for path in one} >= {"differences.png", "groups.png"}
    bare = compare(tables, samples=6).save(tmp_path, plots=False)
    assert names_in(tmp_path) == sorted({path.name for path in bare} | mine)


def test_the_same_comparison_saved_again_keeps_its_pictures(tmp_path):
    found = compare([[from_store(store(seed), name)] for seed, name in enumerate("ab")], samples=5)
    paths = found.save(tmp_path)
    found.save(tmp_path, plots=False)
    assert names_in(tmp_path) == sorted(path.name for path in paths)


def test_the_record_says_what_was_compared():
    made = {
        "model": {"name": "org/one"},
        "corpus": {"name": "text", "sha256": "ab"},
        "options": {"pool": "mean"},
    }
    run = from_result(Result(training({1: 0.0, 9: 0.125}).table, made), "run")
    record = compare([run], samples=5, level=0.9, seed=3).record
    assert record["options"] == {"samples": 5, "level": 0.9, "permutations": 0, "seed": 3}
    each = {"model": "org/one", "corpus": "text", "corpus_sha256": "ab", "neighbours": False}
    each |= {"k": 5, "threshold": 3, "metric": "cosine", "pool": "mean"}
    assert record["inputs"] == [
        {"name": f"run, step {step}", "step": step, **each} for step in (1, 9)
    ]
    stored = [[from_store(store(seed), name)] for seed, name in enumerate("ab")]
    record = compare(stored, samples=5, permutations=4).record
    assert [source["neighbours"] for source in record["inputs"]] == [True, True]
    assert record["options"]["permutations"] == 4


def test_pictures_say_what_they_show(tmp_path, monkeypatch):
    inputs = [
        [from_store(store(seed), name, k=4, metric="euclidean")] for seed, name in enumerate("abc")
    ]
    found, drawn = compare(inputs, samples=5), []
    monkeypatch.setattr(plots, "overlap", lambda values, layers, **said: (layers, said))
    monkeypatch.setattr(plots, "differences", lambda rows: set(rows["b"]))
    monkeypatch.setattr(plots, "group_differences", lambda rows, by: (set(rows["b"]), by))
    monkeypatch.setattr(plots, "save", lambda ax, path: drawn.append((path.name, ax)))
    found.save(tmp_path, by="script")
    layers, said = ((0, 1, 2),) * 2, {"chance": 4 / 39, "k": 4, "metric": "euclidean"}
    assert drawn == [
        ("differences.png", {"b"}),
        ("groups.png", ({"b"}, "script")),
        ("differences-2.png", {"c"}),
        ("groups-2.png", ({"c"}, "script")),
        ("overlap.png", (layers, {"names": ("a", "b"), **said})),
        ("overlap-2.png", (layers, {"names": ("a", "c"), **said})),
    ]


def test_files_that_a_comparison_did_not_write_are_not_ours(tmp_path):
    tables = [from_result(result(), "a"), from_result(result(0.125), "b")]
    compare(tables, samples=5).save(tmp_path)  # tables have no overlaps
    mine = {"overlap.png", "overlap.csv", "differences-2.png"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    bare = compare(tables, samples=6).save(tmp_path, plots=False)
    assert names_in(tmp_path) == sorted({path.name for path in bare} | mine)
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}


def test_pictures_kept_beside_a_second_table_go_with_a_third(tmp_path):
    tables = [from_result(result(), "a"), from_result(result(0.125), "b")]
    found = compare(tables, samples=5)
    found.save(tmp_path)
    found.save(tmp_path, plots=False)
    bare = compare(tables, samples=6).save(tmp_path, plots=False)
    assert names_in(tmp_path) == sorted(path.name for path in bare)


@pytest.mark.parametrize("table", [None, b"not a table", {"kind": "score"}])
def test_files_of_a_folder_without_a_comparison_are_not_ours(tmp_path, table):
    (tmp_path / "differences-2.png").write_text("mine")
    if isinstance(table, bytes):
        (tmp_path / "compare.parquet").write_bytes(table)
    elif table is not None:
        write_table(pd.DataFrame({"x": [1]}), table, tmp_path, "compare")
    found = compare([from_result(result(), "a"), from_result(result(), "b")], samples=5)
    found.save(tmp_path, plots=False)
    assert (tmp_path / "differences-2.png").read_text() == "mine"


# ---------------------------------------------------------------- the command


def test_the_command_writes_tables_and_pictures(run, tmp_path):
    result().save(tmp_path / "first", plots=False)
    result(0.125).save(tmp_path / "second", plots=False)
    out = tmp_path / "out"
    code, shown, said = run(
        "compare", tmp_path / "first", tmp_path / "second", "--out", out, "--by", "script"
    )
    assert (code, said) == (0, "")
    assert "second minus first" in shown
    assert "in brackets the 95 % interval over" in shown
    assert "+0.050 [+0.000, +0.100]" in shown
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv",
        "compare.parquet",
        "differences.png",
        "groups.png",
    ]
    table = pd.read_parquet(out / "compare.parquet")
    assert list(table.columns) == list(COLUMNS)
    record = json.loads(pq.read_schema(out / "compare.parquet").metadata[b"ilo_fast"])
    assert record["command"] == sys.argv
    assert [given["name"] for given in record["inputs"]] == ["first", "second"]
    again = pd.read_csv(out / "compare.csv", engine="pyarrow")
    np.testing.assert_array_equal(again["difference"], table["difference"])


def test_the_command_takes_a_level(run, tmp_path):
    result().save(tmp_path / "first", plots=False)
    result(0.125).save(tmp_path / "second", plots=False)
    given = ("compare", tmp_path / "first", tmp_path / "second", "--no-plots", "--out")
    code, shown, _ = run(*given, tmp_path / "half", "--level", 0.5)
    assert code == 0
    assert "in brackets the 50 % interval over" in shown
    run(*given, tmp_path / "usual")
    half, usual = (pd.read_parquet(tmp_path / at / "compare.parquet") for at in ("half", "usual"))
    rows = half["kind"] == "all"
    assert (half["high"] - half["low"] <= usual["high"] - usual["low"])[rows].all()
    assert (half["high"] - half["low"] < usual["high"] - usual["low"])[rows].any()
    for wrong in (0, 1, "nan"):
        code, _, said = run(*given, tmp_path / "none", "--level", wrong)
        assert (code, said.count("\n")) == (2, 1)
        assert "level" in said
    assert not (tmp_path / "none").exists()


def test_draws_asked_for_reach_the_comparison(run, tmp_path):
    for seed, name in enumerate("ab"):
        kept = score_states(store(seed), k=4, metrics="neighbors", name=name)
        kept.save(tmp_path / name, plots=False)
    draws = {"samples": 7, "level": 0.5, "permutations": 5, "seed": 3}
    given = [word for name, value in draws.items() for word in (f"--{name}", value)]
    out = tmp_path / "out"
    given += ["--no-plots", "--out", out]
    assert run("compare", tmp_path / "a", tmp_path / "b", *given)[0] == 0
    table, record = read_table(out / "compare.parquet")
    assert record["options"] == draws
    sides = [read_inputs([tmp_path / name])[0] for name in "ab"]
    expected = compare(sides, **draws).table
    for column in ("difference", "low", "high"):
        np.testing.assert_array_equal(table[column], expected[column])


def test_the_command_understands_a_training(run, tmp_path):
    path = training({0: 0.0, 5: 0.1, 9: 0.3}).write_parquet(tmp_path / "run.parquet")
    out = tmp_path / "out"
    code, shown, _ = run("compare", path, "--steps", "0,5", "--out", out, "--no-plots")
    assert code == 0
    assert "run, step 5 minus run, step 0" in shown
    assert sorted(path.name for path in out.iterdir()) == ["compare.csv", "compare.parquet"]


def test_the_command_names_what_it_removes(run, tmp_path):
    for name, shift in (("first", 0), ("second", 0.125)):
        result(shift).save(tmp_path / name, plots=False)
    given = ("compare", tmp_path / "first", tmp_path / "second", "--out", tmp_path / "out")
    assert "Removed" not in run(*given)[1]
    (tmp_path / "out" / "groups.png").unlink()
    code, shown, _ = run(*given, "--no-plots")
    assert code == 0
    assert shown.splitlines()[-1] == "Removed, as of an earlier run: differences.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--permutations", "9"], "permutations are draws of the overlap's null"),
        (["--steps", "5"], "expected two steps as 0,400, got '5'"),
        (["--steps", "0,8"], "holds no step 8"),
        (["--k", "9"], "k: run was scored with 5, 9 was asked for"),
        (["--threshold", "2"], "threshold: run was scored with 3, 2 was asked for"),
        (["--metric", "euclidean"], "metric: run was scored with cosine, euclidean was asked for"),
    ],
)
def test_bad_input_is_one_line_and_no_files(run, tmp_path, arguments, message):
    path = training({0: 0.0, 9: 0.1}).write_parquet(tmp_path / "run.parquet")
    out = tmp_path / "out"
    code, shown, said = run("compare", path, "--out", out, *arguments)
    assert (code, shown) == (2, "")
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()
