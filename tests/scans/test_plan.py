"""Plans: what they may say, and the line and key of each mistake."""

import inspect
from dataclasses import fields

import pytest

from ilo_fast import score
from ilo_fast.errors import InputError
from ilo_fast.options import ScoreOptions
from ilo_fast.scans.plan import Options, PlanError, read_plan
from ilo_fast.scans.positions import load_yaml

GOOD = """
version: 1
results: out
defaults:
  k: 10
  metrics: [cosine, euclidean]
corpora:
  - demo
  - {corpus: text, name: mine, languages: [eng_Latn, deu_Latn]}
models:
  - org/name
  - model: org/other
    revisions: [main, "step*"]
    k: 3
    dtype: float32
    trust_remote_code: true
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return read_plan(path)

    return read_text


def test_defaults_and_overrides(read, tmp_path):
    plan = read(GOOD)
    first, second = (plan.options_of(model) for model in plan.models)
    assert (first.k, first.dtype, first.metrics) == (10, "auto", ["cosine", "euclidean"])
    assert (second.k, second.dtype, second.metrics) == (3, "float32", ["cosine", "euclidean"])
    assert [model.trust_remote_code for model in plan.models] == [False, True]
    assert plan.results_folder == tmp_path / "out"
    assert plan.corpora[0].corpus == "demo"


def test_a_plan_and_score_take_the_same_options():
    """With the same defaults; metrics of a plan are the metric of several scorings."""
    of_score = {
        name: parameter.default
        for name, parameter in inspect.signature(score).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    of_plan = {name: field.get_default() for name, field in Options.model_fields.items()}
    shared = {field.name: field.default for field in fields(ScoreOptions)}
    [of_plan["metric"]] = of_plan.pop("metrics")
    only = {"intervals", "permutations", "keep_neighbors"}
    assert {name: of_score.get(name, "no such") for name in of_plan.keys() - only} == {
        name: default for name, default in of_plan.items() if name not in only
    }
    assert {name: of_score[name] for name in shared} == shared
    assert shared.keys() - of_plan.keys() == {"reference", "metrics"}
    assert of_plan.keys() - shared.keys() - only == {"device", "dtype"}


def test_every_mistake_with_line_and_key(read):
    text = """trust_remote_code: true
defaults:
  k: "5"
  metrics: [cosine, cosin]
  thresold: 3
corpora:
  - demo
  - path: text
models:
  - model: org/name
    revisions: [1000, "step*"]
    k: 0
    layers: "0,x"
    trust_remote_code: "yes"
  - 5
"""
    with pytest.raises(PlanError) as caught:
        read(text)
    assert str(caught.value).splitlines() == [
        "plan.yaml, line 1, trust_remote_code: unknown key; it is a key of one model, never of all",
        "plan.yaml, line 3, defaults.k: should be a valid integer, got '5'",
        "plan.yaml, line 4, defaults.metrics[1]: expected 'cosine', 'euclidean' or "
        "'inner_product', got 'cosin'",
        "plan.yaml, line 5, defaults.thresold: unknown key; did you mean threshold?",
        "plan.yaml, line 8, corpora[1].corpus: missing",
        "plan.yaml, line 8, corpora[1].path: unknown key; known are corpus, name, languages, "
        "limit, split, revision",
        "plan.yaml, line 11, models[0].revisions[0]: expected text, got 1000: put it in quotes",
        "plan.yaml, line 12, models[0].k: should be greater than or equal to 1, got 0",
        "plan.yaml, line 13, models[0].layers: layers must be numbers and slices such as "
        "'0,5,10:20', got 'x' in '0,x'",
        "plan.yaml, line 14, models[0].trust_remote_code: should be a valid boolean, got 'yes'",
        "plan.yaml, line 15, models[1]: expected text or keys, got 5",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,", "line 1: not valid YAML"),
        ("models: [a]\nmodels: [b]", "line 2: models is given twice"),
        ("a: &x 1\nb: *x", r"line 2: aliases \(\*x\)"),
        (
            "!!python/object:os.system x",
            "line 1: not valid YAML: could not determine a constructor",
        ),
        ("5", "expected keys such as models and corpora, got 5"),
        ("models:\n  " + "[" * 999 + "]" * 999, "line 2: nested more than 20 deep"),
        ("[" * 200_000, "line 1: nested more than 20 deep"),
        ("{a: " * 999 + "1" + "}" * 999, "line 1: nested more than 20 deep"),
        ("x " * 999, "expected keys such as models and corpora, got '" + "x " * 28 + "..."),
        ("", "got None"),
        ("1: 2", "line 1: keys are text, got 1"),
        ("models: [a]", "corpora: missing"),
        ("models: []\ncorpora: [demo]", "line 1, models: List should have at least 1 item"),
        ("models: [a]\ncorpora: [demo]\nversion: 2", "line 3, version: expected 1, got 2"),
        ("models: [a]\ncorpora: [demo]\ndefaults: {layers: 1.5}", "defaults.layers"),
        ("models: [a]\ncorpora: [demo]\ndefaults: {layers: [3, 0, 3]}", "got 3 more often"),
        ("models: [a]\ncorpora: [demo]\ndefaults: {metrics: [cosine, cosine]}", "each metric once"),
        (
            "models: [a]\ncorpora: [demo]\ndefaults:\n  device: gpu",
            "line 4, defaults.device: expected auto, balanced, cpu, cuda, cuda:<n> or mps",
        ),
        (
            "models: [a]\ndefaults:\n  layers: 10:20",
            "line 3, defaults.layers: YAML takes 10:20 for the number 620: put it in quotes",
        ),
        ("a: " + "x" * 1_100_000, "at most 1,048,576 characters"),
    ],
)
def test_what_is_no_plan(read, text, said):
    with pytest.raises(InputError, match=said):
        read(text)


def test_what_came_is_shown_in_short(read):
    with pytest.raises(PlanError, match=r"expected text or keys, got .{80}$"):
        read(f"corpora: [demo]\nmodels: [[{'x' * 200}]]")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot read"):
        read_plan(tmp_path / "bytes.yaml")


def test_mappings_and_plans_are_plans_too():
    plan = read_plan({"models": ["org/name"], "corpora": ["demo"]})
    assert read_plan(plan) is plan
    with pytest.raises(PlanError, match=r"plan, models\[0\].k"):
        read_plan({"models": [{"model": "a", "k": -1}], "corpora": ["demo"]})


def test_lines_of_nested_keys():
    located = load_yaml("a:\n  - b: 1\n    c: [x,\n        y]\n", "plan")
    assert located.line(("a", 0, "c", 1)) == 4
    assert located.line(("a", 0, "missing")) == 2
    assert located.data == {"a": [{"b": 1, "c": ["x", "y"]}]}
