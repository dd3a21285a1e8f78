"""One call from its arrival to its answer: its id and trace, its metrics, its line in the log. Knows no protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from encoder.call_context import Call, Span, accept, called, within
from services.observing.call_metrics import CallMetrics
from services.observing.logs import FIELDS
from services.setting_groups import AccessLog

logger = logging.getLogger(__name__)

# Statuses that are the service's fault, or its parts', and not the caller's.
FAULTS = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS"})
# While all calls fail, or all are slow, the log says so and does not fill the disk.
LINES_PER_SECOND_MAX = 20


class Answering:
    """A call that is being answered; whoever answers says with what status."""

    __slots__ = ("call", "code")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.code = "OK"


class CallObserver:
    """Observes a process's calls. ``origin`` begins traces; without, none are."""

    def __init__(
        self,
        metrics: CallMetrics,
        origin: Span | None = None,
        *,
        access_log: AccessLog = "errors",
        slow_call_s: float | None = None,
        begins_traces: bool = True,
    ) -> None:
        """``begins_traces`` says whether a call that comes without a trace may begin one."""
        self.metrics = metrics
        self._origin = origin
        self._access_log = access_log
        self._slow_call_s = slow_call_s
        self._begins_traces = begins_traces
        self._second = 0
        self._lines = 0

    @contextmanager
    def answering(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], *, stream: bool = False
    ) -> Iterator[Answering]:
        """Observe what answers a call of ``method`` (``Service/Method``); within, the call is the current one."""
        call = accept(metadata)
        traced = self._begins_traces or call.trace_headers
        span = self._origin.accept(method, call.trace_headers) if self._origin and traced else None
        in_flight = self.metrics.in_flight.labels(method)
        answering = Answering(call)
        started = time.perf_counter()
        in_flight.inc()
        try:
            with called(call), within(span):
                yield answering
        except BaseException as failure:
            if answering.code == "OK":  # whoever answers knew of no failure
                answering.code = "UNKNOWN" if isinstance(failure, Exception) else "CANCELLED"
            raise
        finally:
            duration_s = time.perf_counter() - started
            in_flight.dec()
            self.metrics.requests.labels(method, answering.code).inc()
            if not stream:
                self.metrics.duration.labels(method).observe(duration_s)
            with called(call), within(span):
                self._log(method, answering, duration_s, stream=stream)
            if span:
                span.set("rpc.response.status_code", answering.code)
                span.end(answering.code if answering.code in FAULTS else "")

    def _log(self, method: str, answering: Answering, duration_s: float, *, stream: bool) -> None:
        code, notes = answering.code, answering.call.notes
        slow = self._slow_call_s is not None and not stream and duration_s >= self._slow_call_s
        fault = code in FAULTS
        if not (slow or self._access_log == "all" or (fault and self._access_log == "errors")) or self._is_enough():
            return
        details = "".join(f", {name} {value}" for name, value in notes.items())
        fields = {"method": method, "code": code, "duration_s": round(duration_s, 6), **notes}
        logger.log(
            logging.WARNING if slow or fault else logging.INFO,
            "%s %s in %.3f s%s%s",
            method,
            code,
            duration_s,
            " (slow)" if slow else "",
            details,
            extra={FIELDS: fields},
        )

    def _is_enough(self) -> bool:
        """Say whether this second's lines are written; the next second tells how many were left out."""
        second = int(time.monotonic())
        if second != self._second:
            left_out = self._lines - LINES_PER_SECOND_MAX
            self._second, self._lines = second, 0
            if left_out > 0:
                logger.warning("%d more calls in one second have no line here", left_out)
        self._lines += 1
        return self._lines > LINES_PER_SECOND_MAX
