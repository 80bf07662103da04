"""The options that every way to score shares."""

import inspect
import json

import numpy as np
import pytest

from ilo_fast import Corpus, extract, score, score_states
from ilo_fast.errors import InputError
from ilo_fast.options import ScoreOptions

FIELDS = {name: field.default for name, field in ScoreOptions.__dataclass_fields__.items()}


@pytest.mark.parametrize("way", [score, score_states, extract])
def test_every_way_has_their_defaults(way):
    taken = inspect.signature(way).parameters
    shared = {name: taken[name].default for name in taken.keys() & FIELDS.keys()}
    assert shared
    assert shared == {name: FIELDS[name] for name in shared}
    assert way is not extract or shared.keys() == ScoreOptions().extraction.keys()


def test_score_takes_them_all():
    assert FIELDS.keys() <= inspect.signature(score).parameters.keys()


@pytest.mark.parametrize(
    ("option", "error", "says"),
    [
        ({"k": 0}, InputError, "k must be at least 1; got 0"),
        ({"threshold": "3"}, TypeError, "threshold must be an integer; got '3'"),
        ({"layers": "x"}, InputError, "layers must be numbers and slices"),
        ({"metric": "cosin"}, InputError, "metric must be one of"),
        ({"pool": "max"}, InputError, "pool: expected one of"),
        ({"batch_tokens": 0}, InputError, "batch_tokens: expected at least 1"),
        ({"backend": "gpu"}, InputError, "backend must be one of"),
        ({"fused": "on"}, InputError, "fused must be one of"),
        ({"reference": 1}, TypeError, "reference must be True or False"),
        ({"reference": True, "backend": "torch"}, InputError, "brings its own backend"),
        ({"seed": -1}, InputError, "seed must be at least 0"),
        ({"truncate": "no"}, TypeError, "truncate must be True or False"),
        ({"metrics": ["nul"]}, InputError, "metrics must be among"),
    ],
)
def test_each_is_checked_as_the_object_is_made(option, error, says):
    with pytest.raises(error, match=says):
        ScoreOptions(**option)


def test_numbers_of_numpy_become_pythons():
    made = ScoreOptions(
        k=np.int64(4),
        threshold=np.int8(2),
        batch_tokens=np.int32(64),
        seed=np.uint8(1),
        truncate=np.True_,
        reference=np.False_,
    )
    assert made == ScoreOptions(k=4, threshold=2, batch_tokens=64, seed=1, truncate=True)
    assert json.loads(json.dumps(vars(made))) == {**vars(made), "metrics": []}


def test_they_do_not_change():
    with pytest.raises(AttributeError):
        ScoreOptions().k = 6


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ({}, "auto"),
        ({"backend": "torch"}, "torch"),
        ({"reference": True}, "reference"),
        ({"reference": True, "backend": "reference"}, "reference"),
    ],
)
def test_what_searches(given, engine):
    assert ScoreOptions(**given).engine == engine


def test_names_for_the_record():
    def loudest(states, offsets):
        return states

    options = ScoreOptions(pool=loudest, metrics="null,mrr,null")
    assert options.pool_name.endswith("loudest")
    assert options.metrics == ("mrr", "null")
    assert ScoreOptions(metrics=iter(["mrr"])).metrics == ("mrr",)  # read once


def test_a_text_too_small():
    text = Corpus("words", ("eng", "deu"), (("Hello.", "Bye."), ("Hallo.", "Ade.")))
    ScoreOptions(k=3, threshold=1).check_text(text)
    with pytest.raises(InputError, match="k must be less than the number of points, 4"):
        ScoreOptions(k=4, threshold=1).check_text(text)
    with pytest.raises(
        InputError, match=r"threshold must be at most 1, .* sees at most 1 language but"
    ):
        ScoreOptions(k=3, threshold=2).check_text(text)
