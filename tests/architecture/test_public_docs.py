"""Every public name tells its parameters, results and errors in sections that tools render, and its example runs."""

import doctest
import inspect
import itertools

import pytest

import sessionize
from sessionize import SessionizeError

PUBLIC = {name: getattr(sessionize, name) for name in sessionize.__all__}
ERRORS = sorted(
    name for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, SessionizeError)
)
DOCUMENTED = sorted(set(PUBLIC) - set(ERRORS))


def sections(text: str) -> set[str]:
    lines = text.splitlines()
    return {
        title.strip() for title, under in itertools.pairwise(lines) if under.strip() and set(under.strip()) == {"-"}
    }


def examples(value: object, name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder(recurse=True).find(value, name) if test.examples]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_parameters_errors_and_an_example_have_sections(name):
    found = sections(inspect.getdoc(PUBLIC[name]) or "")
    assert found >= {"Parameters", "Raises", "Notes", "Examples"}
    if inspect.isfunction(PUBLIC[name]):
        assert "Returns" in found


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_parameter_is_described(name):
    value = PUBLIC[name]
    text = (inspect.getdoc(value) or "").split("Raises\n------")[0]
    for parameter in inspect.signature(value).parameters:
        assert any(parameter in line.split(" : ")[0].split(", ") for line in text.splitlines()), parameter


@pytest.mark.parametrize("name", [*DOCUMENTED, "SessionizeError"])
def test_the_examples_run(name):
    found = examples(PUBLIC[name], name)
    assert found
    runner = doctest.DocTestRunner(verbose=False)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_says_when_it_is_raised(name):
    assert "__doc__" in vars(PUBLIC[name])
    assert len(vars(PUBLIC[name])["__doc__"].strip()) > 20
