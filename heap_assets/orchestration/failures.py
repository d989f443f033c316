"""Failures of runs and ticks: the message of an error of our own says all, and is shown without a stack trace."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import dagster as dg

# What Dagster raises for the error of another process, and stores as that process had it; it has no public name.
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo

from heap_assets.errors import HeapAssetsError
from heap_assets.redaction import redacting

P = ParamSpec("P")
R = TypeVar("R")


class PlainFailure(dg.Failure, DagsterUserCodeProcessError):
    """A failure that Dagster stores as its message, with the name of the error behind it and no stack trace."""

    def __init__(self, error: dg.Failure | HeapAssetsError) -> None:
        failure = error if isinstance(error, dg.Failure) else dg.Failure(str(error))
        Exception.__init__(self, str(error))  # the constructors of the bases do not go together
        self.description, self.metadata, self.allow_retries = str(error), failure.metadata, failure.allow_retries
        # as Python prints an exception, which is what readers of the event log expect
        message = f"{type(error).__name__}: {error}\n"
        self.user_code_process_error_infos = [SerializableErrorInfo(message, [], type(error).__name__)]


def raising_failures(function: Callable[P, R], *, retried: bool = False) -> Callable[P, R]:
    """Decorate a function that Dagster calls: exceptions are redacted, expected errors become a :class:`PlainFailure`.

    Expected are :class:`HeapAssetsError` and `dagster.Failure`. `retried`: the step has a retry policy, which Dagster
    applies to `Failure` only, so a `Failure` that allows retries is raised as it is.
    """
    safe = redacting(function)

    # raised outside of the handler, or the failure would carry the error as its context
    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return safe(*args, **kwargs)
        except (dg.Failure, HeapAssetsError) as error:
            failure = _failure(error, retried=retried)
        raise failure

    @functools.wraps(function)
    def generated(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        try:
            return (yield from cast("Iterator[Any]", safe(*args, **kwargs)))
        except (dg.Failure, HeapAssetsError) as error:
            failure = _failure(error, retried=retried)
        raise failure

    return cast("Callable[P, R]", generated) if inspect.isgeneratorfunction(function) else called


def _failure(error: dg.Failure | HeapAssetsError, *, retried: bool) -> dg.Failure:
    if retried and isinstance(error, dg.Failure) and error.allow_retries:
        return error
    return PlainFailure(error)
