"""What an error of PostgreSQL means: whether the same may succeed later, and what to do.

Five-letter codes are PostgreSQL's SQLSTATE. A connection that is refused has none, only a text.
"""

import psycopg

from sessionize.errors import OutputError, SessionizeError, UnavailableError

# Whole classes, then single codes; what is in neither will never succeed.
_LATER_CLASSES = {
    "08": "check that the server runs and can be reached",
    "53": "the server lacks disk, memory or connections: free some, or raise its limits",
    "58": "look at the server's disk and log",
}
_LATER = {
    "25006": "the server is read-only now: a standby, or one being moved",
    "25P03": "the server ended a transaction that took too long",
    "40001": "another writer was faster",
    "40P01": "another writer was faster",
    "55P03": "another transaction holds a lock for too long; look for it in pg_stat_activity",
    "57014": "the server's statement_timeout is too short for an epoch, or somebody cancelled the statement",
    "57P01": "the server is being stopped",
    "57P02": "the server crashed and comes back",
    "57P03": "the server is starting or stopping",
    "57P05": "the server ended an idle connection",
}
_NEVER = {
    "42501": "grant the role what it needs: to use the schema, to read and write the tables, and to make them",
    "3F000": "name a schema, or set the role's search_path",
    "54000": "a value is too large for PostgreSQL",
    "28P01": "check the user and the password",
    "28000": "check the user, the password and the server's pg_hba.conf",
    "3D000": "make the database, or name another one",
}
_AS_MADE = "check that the tables are as sessionize makes them: a column may have another type or constraint"

# Texts of a refused connection that say it will stay refused, in the language servers speak unless told otherwise.
_REFUSED_FOR_GOOD = {
    "password authentication failed": _NEVER["28P01"],
    "no password supplied": "give the password in an environment variable (password_env) or a file (password_file)",
    "no pg_hba.conf entry": _NEVER["28000"],
    "is not permitted to log in": _NEVER["28000"],
    "authentication failed": _NEVER["28000"],
    "permission denied for database": _NEVER["42501"],
    "does not exist": "check the names of the database, the user and files in the dsn",
    "does not support SSL": "check sslmode in the dsn",
    "certificate": "check sslmode, sslrootcert and the server's certificate",
}


def failure_of(error: psycopg.Error, place: str) -> SessionizeError:
    """Our error for the driver's. place: the login, without its password."""
    code = error.sqlstate
    if code is None:
        return _without_code(error, place)
    detail = f"{place}: {error.diag.message_primary or error} ({code})"
    hint = _LATER.get(code, _LATER_CLASSES.get(code[:2]))
    if hint is not None:
        return UnavailableError("the store cannot be written now", detail=detail, hint=hint)
    return OutputError("the store cannot be written", detail=detail, hint=_NEVER.get(code, _AS_MADE))


def _without_code(error: psycopg.Error, place: str) -> SessionizeError:
    text = str(error)
    detail = f"{place}: {text}"
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return OutputError("the store cannot be written", detail=detail, hint=_AS_MADE)
    if text.startswith("connection failed"):
        for phrase, hint in _REFUSED_FOR_GOOD.items():
            if phrase in text:
                return OutputError("the store does not let us in", detail=detail, hint=hint)
    return UnavailableError("the store cannot be reached now", detail=detail, hint=_LATER_CLASSES["08"])
