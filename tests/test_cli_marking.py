"""The words that match are found by their stems; an excerpt shows the part that matches best."""

from services.cli.marking import Span, find_matches, one_line, take_excerpt


def marked(text: str, query: str) -> list[str]:
    return [text[span.start : span.end] for span in find_matches(text, query)]


def test_words_match_by_stem_and_case_is_ignored() -> None:
    text = "Tortoises TAUGHT lessons; teaching is not what it taught."
    assert marked(text, "which tortoise taught a lesson?") == ["Tortoises", "TAUGHT", "lessons", "taught"]


def test_stop_words_and_parts_of_words_do_not_match() -> None:
    assert marked("it is the art of the start", "is it the art") == ["art"]
    assert marked("nothing here", "is it the") == []


def test_a_short_passage_is_shown_whole_on_one_line() -> None:
    excerpt = take_excerpt("one\n  two\tthree", "two", 100)
    assert (excerpt.text, excerpt.cut_before, excerpt.cut_after) == ("one two three", False, False)
    assert excerpt.marks == (Span(4, 7),)


def test_a_long_passage_is_cut_around_its_best_part() -> None:
    text = "geothermal " + "filler " * 100 + "the geothermal share of electricity in Kenya " + "filler " * 100
    excerpt = take_excerpt(text, "share of geothermal electricity in Kenya", 80)
    assert "the geothermal share of electricity in Kenya" in excerpt.text
    assert len(excerpt.text) <= 80
    assert excerpt.cut_before
    assert excerpt.cut_after
    assert [excerpt.text[mark.start : mark.end] for mark in excerpt.marks] == [
        "geothermal",
        "share",
        "electricity",
        "Kenya",
    ]
    assert set(excerpt.text.split()) <= set(text.split())  # no word is cut


def test_without_matches_the_beginning_is_shown() -> None:
    excerpt = take_excerpt("alpha " * 50, "omega", 30)
    assert excerpt.text == "alpha alpha alpha alpha alpha"
    assert (excerpt.cut_before, excerpt.cut_after) == (False, True)


def test_a_passage_without_blanks_is_cut_at_the_limit() -> None:
    excerpt = take_excerpt("x" * 100, "x", 30)
    assert excerpt.text == "x" * 30


def test_all_is_shown_on_request() -> None:
    assert len(take_excerpt("alpha " * 500, "alpha", None).marks) == 500


def test_control_characters_never_reach_the_terminal() -> None:
    assert one_line("a\x1b[31mred\x00\n\tend") == "a [31mred end"
    assert one_line("abcdef", 4) == "abc…"
    assert take_excerpt("one\x1b[2Jtwo", "two", None).text == "one [2Jtwo"
