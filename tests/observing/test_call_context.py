"""Ids and traces of calls, in and out."""

import pytest

from encoder.call_context import (
    accept,
    batch_span,
    called,
    current_call,
    current_trace_id,
    outgoing_metadata,
    root_span,
    span,
    within,
)
from tests.observing.spans import Recorder

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_a_client_sends_goes_on_to_the_next() -> None:
    call = accept([("X-Request-Id", "a1"), ("traceparent", PARENT), ("tracestate", "vendor=1"), ("other", b"\0")])
    with called(call):
        assert current_call() is call
        assert outgoing_metadata() == (("x-request-id", "a1"), ("traceparent", PARENT), ("tracestate", "vendor=1"))
        assert current_trace_id() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert current_call() is None
    assert outgoing_metadata() == ()
    assert current_trace_id() == ""


@pytest.mark.parametrize("given", ["", "two words", "a\nb", "x" * 129, "ü"])
def test_an_id_that_is_no_plain_word_is_replaced(given: str) -> None:
    request_id = accept([("x-request-id", given)]).request_id
    assert len(request_id) == 16
    assert request_id != accept([]).request_id


@pytest.mark.parametrize(
    "given",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        "01" + PARENT[2:],
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT + "\n",
    ],
)
def test_a_trace_that_is_not_w3cs_is_left_out(given: str) -> None:
    assert accept([("traceparent", given), ("tracestate", "vendor=1")]).trace_headers == ()


def test_a_state_that_is_too_long_is_left_out() -> None:
    call = accept([("traceparent", PARENT), ("tracestate", "x" * 513)])
    assert call.trace_headers == (("traceparent", PARENT),)


def test_nothing_is_traced_where_nobody_traces() -> None:
    with span("inner", {"count": 1}) as opened, root_span("root"), batch_span("batch", [None, None]):
        opened.set("more", 2)
        assert outgoing_metadata() == ()


def test_spans_stand_in_one_another_and_end_with_what_failed() -> None:
    recorder = Recorder()
    with within(recorder.origin):
        with span("outer"), pytest.raises(KeyError), span("inner", {"count": 1}):
            raise KeyError("secret")
        with span("next"):
            pass
    assert recorder.told() == ["inner < outer (KeyError)", "outer", "next"]


def test_a_batch_stands_with_its_first_cause_and_is_linked_to_all() -> None:
    recorder = Recorder()
    first, second = recorder.origin.child("first"), recorder.origin.child("second")
    with batch_span("batch", [None, first, second]):
        pass
    assert recorder.told() == ["batch < first, of first and second"]


def test_work_without_end_has_a_trace_of_its_own() -> None:
    recorder = Recorder()
    with within(recorder.origin), span("stream"), root_span("group"), span("part"):
        pass
    assert recorder.told() == ["part < group", "group, of stream", "stream"]
