"""Points that try the bounds: each function makes float64 ``[n, d]`` from a NumPy generator."""

import numpy as np


def normal(generator, n, d):
    return generator.normal(size=(n, d))


def massive_dimension(generator, n, d):
    x = generator.normal(size=(n, d))
    x[:, 0] = 1000 + 10 * generator.normal(size=n)
    return x


def near_ties(generator, n, d):
    return generator.normal(size=d) + 1e-7 * generator.normal(size=(n, d))


def float64_noise(generator, n, d):
    return generator.normal(size=d) * (1 + 4e-16 * generator.normal(size=(n, d)))


def one_direction(generator, n, d):
    line = generator.uniform(0.5, 2, size=(n, 1)) * generator.normal(size=d)
    return line + 1e-9 * generator.normal(size=(n, d))


def far_outliers(generator, n, d):
    x = generator.normal(size=(n, d))
    x[:3] *= 1e12
    return x


def zeros_and_tiny(generator, n, d):
    x = generator.normal(size=(n, d))
    x[0] = 0
    x[1] *= 1e-30
    x[2] = 1e-300
    return x


def edge_of_rounding(generator, n, d):
    # Values half way between two float32 numbers once scaled: the cast errs by the most it can.
    x = np.round(generator.uniform(1, 2, size=(n, d)) * 2**23) + 0.5
    return np.ldexp(x, -23) * generator.choice([-1, 1], size=(n, d))


def antipodes(generator, n, d):
    # Opposite points around a zero vector: every inequality between products and norms is tight.
    x = generator.choice([-1, 1], size=(n, d)) * generator.uniform(1, 2, size=d)
    x[1::2] = -x[: 2 * (n // 2) : 2]
    x[-1] = 0
    return x


CASES = (
    normal,
    massive_dimension,
    near_ties,
    float64_noise,
    one_direction,
    far_outliers,
    zeros_and_tiny,
    edge_of_rounding,
    antipodes,
)
