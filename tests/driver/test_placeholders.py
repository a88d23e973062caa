"""`%s`, `%(name)s` and `%%`, and what is none of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.driver import ProgrammingError
from poolproof.driver.placeholders import arranged, parsed


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("select %s, %s", "select $1, $2"),
        ("select %(a)s, %(b)s, %(a)s", "select $1, $2, $1"),
        ("select 10 %% %s", "select 10 % $1"),
        ("select '%%s'", "select '%s'"),
        ("select '%s' -- %s", "select '$1' -- $2"),
        ("select $$%s$$", "select $$$1$$"),
        ("select %(a name, with: signs)s", "select $1"),
        ("select 1", "select 1"),
        ("%%", "%"),
        ("", ""),
    ],
)
def test_placeholders_become_numbers(statement, text):
    assert parsed(statement).text == text


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select 10 % 3", "'%' at character 11"),
        ("like 'a%'", "at character 8"),
        ("100%", "'%' at character 4"),
        ("select %d", "'%d' at character 8"),
        ("select %(a)d", "'%(a)d' at character 8"),
        ("select %(a", "'%(a'"),
        ("select %s, %(a)s", "both %s and %(name)s"),
    ],
)
def test_what_is_no_placeholder_is_refused_with_its_place(statement, said):
    with pytest.raises(ProgrammingError) as refused:
        parsed(statement)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "parameters", "said"),
    [
        ("%s, %s", [1], "2 placeholders, and 1 value was given"),
        ("%s", [1, 2], "1 placeholder, and 2 values were given"),
        ("%s", [], "1 placeholder, and 0 values were given"),
        ("%s", {}, "1 placeholder, and 0 values were given"),
        ("%s", {"a": 1}, "needs a sequence"),
        ("%(a)s", [1], "needs a mapping"),
        ("%(a)s, %(b)s", {"a": 1}, "not given: 'b'"),
        ("%s", "a", "not str; a single one is written (value,)"),
        ("%s", 1, "not int"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(statement, parameters, said):
    with pytest.raises(ProgrammingError) as refused:
        arranged(parsed(statement), parameters)
    assert said in str(refused.value)


def test_values_come_in_the_order_of_the_numbers():
    found = parsed("%(b)s %(a)s %(b)s")
    assert arranged(found, {"a": 1, "b": 2, "c": 3}) == [2, 1]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["%s", "%%", "a", "'", "$1", "--", "\n", '"'])))
def test_number_of_placeholders_is_that_of_the_marks(pieces):
    found = parsed("".join(pieces))
    assert found.needed == pieces.count("%s")
    assert found.text.count("%") == pieces.count("%%")


@settings(deadline=None)
@given(
    # Half of a character is refused.
    st.text(alphabet=st.characters(exclude_characters="%", exclude_categories=["Cs"]))
)
def test_text_without_a_percent_sign_is_left_as_it_is(text):
    assert parsed(text).text == text


def test_percent_sign_is_itself_without_parameters(cursor):
    assert cursor.execute("select 10 % 3, 'a%s'").fetchone() == (1, "a%s")
    with_some = cursor.execute("select 10 %% %s, 'a%%s'", [3])
    assert with_some.fetchone() == (1, "a%s")
    with_none = cursor.execute("select 10 %% 3", [])
    assert with_none.fetchone() == (1,)
