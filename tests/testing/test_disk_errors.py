"""A disk's error is reported in one form: unavailable where a retry may succeed, else what the caller says."""

import errno
import os

import pytest

from sessionize.durable import disk_error, disk_errors
from sessionize.errors import InputError, OutputError, UnavailableError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_full_or_failing_disk_is_unavailable(number: int) -> None:
    cause = OSError(number, os.strerror(number))
    with pytest.raises(UnavailableError) as caught, disk_errors("a file cannot be written", "/x", hint="make room"):
        raise cause
    assert caught.value.message == "a file cannot be written now"
    assert (caught.value.detail, caught.value.hint) == (f"/x: {os.strerror(number)}", "make room")
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EMFILE])
def test_what_stays_is_an_error_of_the_output_with_its_own_hint(number: int) -> None:
    with (
        pytest.raises(OutputError) as caught,
        disk_errors("a file cannot be written", "/x", hint="make room", permanent_hint="look at the rights"),
    ):
        raise OSError(number, os.strerror(number))
    assert (caught.value.message, caught.value.hint) == ("a file cannot be written", "look at the rights")


def test_an_input_may_say_its_own_and_other_errors_pass() -> None:
    error = disk_error("a file cannot be read", "/x", OSError("damaged"), hint="look", permanent=InputError)
    assert isinstance(error, InputError)
    assert (error.detail, error.hint) == ("/x: damaged", "look")
    with pytest.raises(ValueError, match="mine"), disk_errors("a file cannot be read", "/x", hint="look"):
        raise ValueError("mine")
