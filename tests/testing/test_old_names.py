"""Old names that users of the package may have in their tests work for one more version, with a warning."""

import pytest

from sessionize.testing import streams


@pytest.mark.parametrize(
    ("old", "new"), [("RecordedStream", "InMemoryStreamSource"), ("KeptEpochs", "InMemoryEpochSink")]
)
def test_old_classes_warn(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(streams, old) is getattr(streams, new)


def test_other_names_are_missing_as_before() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(streams, "Nothing")  # noqa: B009 - as a name that nobody declared
