"""Errors cross process borders whole."""

import pickle

from encoder.errors import InvalidInput, Overloaded


def test_errors_survive_pickling() -> None:
    invalid = pickle.loads(pickle.dumps(InvalidInput("query", "query is empty.")))
    assert (str(invalid), invalid.field) == ("query is empty.", "query")
    overloaded = pickle.loads(pickle.dumps(Overloaded("The queue is full.", 1.5)))
    assert (str(overloaded), overloaded.retry_after_s) == ("The queue is full.", 1.5)
