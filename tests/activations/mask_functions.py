"""Mask functions as transformers makes them: which query sees which key."""


def causal(batch, head, query, key):
    return key <= query


def both_ways(batch, head, query, key):
    return query >= 0


def window(size):
    return lambda batch, head, query, key: (key <= query) & (key > query - size)


def around(size):
    return lambda batch, head, query, key: (query - key).abs() <= size


def chunks(size):
    return lambda batch, head, query, key: (key <= query) & (query // size == key // size)
