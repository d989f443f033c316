"""One Dagster platform that makes Heap and the warehouse agree about who a customer is."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = [
    "Explanation",
    "HeapAssetsComponent",
    "HeapAssetsError",
    "IdentifierRule",
    "MissingInputError",
    "Project",
    "Resolution",
    "Rules",
    "SettingsError",
    "SyncPlan",
    "Table",
    "resolve",
]
_ELSEWHERE = {"HeapAssetsComponent": "orchestration.component"}
"""Public names that are not of `api`. All are imported when they are asked for; their types are in `__init__.pyi`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
