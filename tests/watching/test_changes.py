"""What changes mean: the pure function alone."""

from ingest.watching.changes import PATIENCE_S, QUIET_S, Action, KnownFile, decide, next_look


def test_a_new_file_is_read_once_it_is_quiet() -> None:
    known = next_look(None, "1:a", 100.0)
    assert decide(known, 100.0, found=True) is Action.WAIT
    again = next_look(known, "1:a", 100.0 + QUIET_S)
    assert decide(again, 100.0 + QUIET_S, found=True) is Action.READ


def test_a_file_that_is_still_written_waits_but_not_for_ever() -> None:
    known, now, read_at = None, 100.0, []
    for step in range(60):
        now = 100.0 + step * QUIET_S / 2
        known = next_look(known, f"{step}:a", now)
        action = decide(known, now, found=True)
        assert action in (Action.WAIT, Action.READ)
        if action is Action.READ:
            read_at.append(now)
            known = KnownFile(known.seen, known.seen, known.seen_since, known.changed_since)
    assert read_at == [100.0 + PATIENCE_S]


def test_a_file_as_it_was_read_is_left_alone() -> None:
    known = KnownFile(read="1:a", seen="1:a", seen_since=1, changed_since=1)
    assert decide(next_look(known, "1:a", 9), 9, found=True) is Action.NOTHING
    changed = next_look(known, "2:a", 9)
    assert (changed.seen_since, changed.changed_since) == (9, 9)
    back = next_look(changed, "1:a", 10)
    assert decide(back, 10, found=True) is Action.NOTHING


def test_a_file_that_is_gone() -> None:
    known = KnownFile(read="1:a", seen="1:a")
    assert decide(known, 5, found=False) is Action.FORGET
    assert decide(known, 5, found=False, hidden=True) is Action.NOTHING
    missed = KnownFile(missed=True)
    assert decide(missed, 5, found=False) is Action.NOTHING
    assert decide(missed, 5, found=False, prune=True) is Action.FORGET
    assert decide(missed, 5, found=False, prune=True, hidden=True) is Action.NOTHING
