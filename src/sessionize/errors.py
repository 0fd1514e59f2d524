"""The whole error tree.

SessionizeError
├── ConfigError          a pipeline file, option or policy that cannot be meant
├── InputError           input that cannot be read at all (one bad record is rejected, never raised)
├── OutputError          a sink that cannot take the rows
├── UnavailableError     a server that is not there now: the same call may succeed later
│   └── BusyError        another process is at the same work
├── BoundaryError        a boundary function of the user's that fails
├── StateError           a snapshot or checkpoint that cannot be restored
└── MissingExtraError    an optional part that is not installed

Every error says what failed (message), where and with which value (detail) and what to do next (hint).
"""


class SessionizeError(Exception):
    """Root of every error that sessionize raises on purpose.

    Attributes
    ----------
    message : str
        What failed.
    detail : str or None
        Where, and with which value.
    hint : str or None
        What to do next.

    Examples
    --------
    >>> from sessionize import ConfigError, Policy
    >>> try:
    ...     Policy.of(gap="0s")
    ... except ConfigError as error:
    ...     print(error.message)
    the gap must be longer than zero
    """

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail is not None:
            parts.append(self.detail)
        if self.hint is not None:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class ConfigError(SessionizeError):
    """A pipeline file, option or policy that cannot be meant."""


class InputError(SessionizeError):
    """Input that cannot be read at all."""


class OutputError(SessionizeError):
    """A sink that cannot take the rows."""


class UnavailableError(SessionizeError):
    """A server, network or disk that is not there now; nothing was lost, and the same call may succeed later."""


class BusyError(UnavailableError):
    """Another process is at the same work, which is done either way."""


class BoundaryError(SessionizeError):
    """A boundary function of the user's that fails; what it raised is the cause."""


class StateError(SessionizeError):
    """A snapshot or checkpoint that cannot be restored."""


class MissingExtraError(SessionizeError):
    """An optional part that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            hint=f"pip install 'sessionize[{extra}]'",
        )
        self.package = package
        self.extra = extra
