"""Custom boundaries: find the Python function that a pipeline file names as `module:function`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sessionize.app.config.suggest import did_you_mean, hint_of
from sessionize.errors import ConfigError
from sessionize.session.rules import is_signal

if TYPE_CHECKING:
    import pyarrow as pa

    BoundaryFunction = Callable[[pa.Table], object]


def load_boundary(reference: str, *, folder: Path) -> "BoundaryFunction":
    """Import the function that reference names; modules in folder come before installed ones.

    Errors: ConfigError where there is no such module or function, or where the module fails to import.
    """
    module_name, _, function_name = reference.partition(":")
    where = f"rules.boundary = {reference!r}"
    try:
        with _first_on_path(folder):
            module = _imported(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(module_name, where, error) from error
        raise ConfigError(
            f"no Python module {module_name}",
            detail=where,
            hint=f"put {module_name.replace('.', '/')}.py into {folder.resolve()}, or install it",
        ) from None
    except BaseException as error:  # whatever a module of the user's does while it is imported, sys.exit() included
        if is_signal(error):
            raise
        raise _broken(module_name, where, error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"the module {module_name} has no function {function_name}",
            detail=f"{where}, in {module.__file__}",
            hint=hint_of(did_you_mean(function_name, functions), f"it has {', '.join(functions) or 'none'}"),
        )
    return function  # type: ignore[no-any-return]  # what it returns is checked on every table of events


def _imported(module_name: str, folder: Path) -> ModuleType:
    """Import a module, in folder or elsewhere.

    One in folder gets a name of its own, so that it neither hides an installed module from others nor is
    taken for a module of the same name in another folder.
    """
    file = folder.resolve().joinpath(*module_name.split(".")).with_suffix(".py")
    spec = spec_from_file_location(f"{module_name}@{file}", file) if file.is_file() else None
    if spec is None or spec.loader is None:
        return import_module(module_name)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _broken(module_name: str, where: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"the Python module {module_name} cannot be imported",
        detail=f"{where}: {type(error).__name__}: {error}",
        hint=f"try: python -c 'import {module_name}'",
    )
