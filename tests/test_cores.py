"""Tasks on cores of their own: in order, side by side, and no failure leaves work behind."""

import os
import sys
import threading
import time

import pytest
import torch

from encoder.cores import Cores


@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_come_in_order(count: int) -> None:
    cores = Cores(count)
    assert cores.run([lambda n=number: n * n for number in range(9)]) == [n * n for n in range(9)]
    stages = [lambda x: x + 1, lambda x: x * 10][: cores.count]
    expected = [(x + 1) * 10 if cores.count == 2 else x + 1 for x in range(7)]
    assert list(cores.run_stages(range(7), stages)) == expected


def test_tasks_run_side_by_side_each_on_one_core() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> int:
        meeting.wait()  # would break if the other task came after this one
        return torch.get_num_threads()

    assert Cores(2).run([meet, meet]) == [1, 1]


def test_stages_work_on_different_items_at_once() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def first(item: int) -> int:
        if item == 1:
            meeting.wait()
        return item

    def second(item: int) -> int:
        if item == 0:
            meeting.wait()
        return item

    assert list(Cores(2).run_stages([0, 1], [first, second])) == [0, 1]


def test_a_stage_takes_no_more_items_than_are_under_way() -> None:
    taken = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = Cores(2).run_stages(items(), [lambda x: x, lambda x: x])  # type: ignore[arg-type]
    assert next(results) == 0
    assert len(taken) <= 4


def test_a_failure_reaches_the_caller_after_all_others_have_ended() -> None:
    ended = []

    def fail() -> None:
        raise ZeroDivisionError

    def work() -> None:
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(ZeroDivisionError):
        Cores(2).run([fail, work])
    assert ended
    with pytest.raises(ZeroDivisionError):
        list(Cores(2).run_stages([1, 0, 2], [lambda x: 1 / x, lambda x: x]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is a process's")
def test_threads_give_way_and_the_others_do_not() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    assert Cores(2, niceness=15).run([niceness, niceness]) == [15, 15]
    assert Cores(1).run([niceness]) == [before]
    assert niceness() == before


def test_one_task_alone_runs_in_the_callers_thread_on_one_core() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = Cores(2).run([lambda: (threading.get_ident(), torch.get_num_threads())])
        assert found == [(threading.get_ident(), 1)]
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            Cores(2).run([lambda: 1 // 0])
        assert torch.get_num_threads() == 2
        (other,) = Cores(2, niceness=1).run([threading.get_ident])
        assert other != threading.get_ident()
    finally:
        torch.set_num_threads(before)
