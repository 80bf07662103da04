"""Options with names: another text is a ValueError, anything else a TypeError, arrays too."""

import numpy as np
import pytest
import torch

from ilo_fast import knn, load_corpus
from ilo_fast.alignment import aggregate_layers, xsim_error

POINTS = np.eye(4)
OPTIONS = {
    "metric": lambda value: knn(POINTS, 1, metric=value),
    "backend": lambda value: knn(POINTS, 1, backend=value),
    "how": lambda value: aggregate_layers(POINTS, value),
    "margin": lambda value: xsim_error(POINTS, k=1, margin=value),
    "split": lambda value: load_corpus("demo", split=value),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_none_of_its_names(name):
    with pytest.raises(ValueError, match=rf"{name} must be one of \w+, .*; got 'abacus'"):
        OPTIONS[name]("abacus")


@pytest.mark.parametrize("value", [7, b"mean", ["cosine"], np.array(["a", "b"]), torch.ones(2)])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_no_text(name, value):
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"{name} must be one of \w+, .*; got {kind}"):
        OPTIONS[name](value)
