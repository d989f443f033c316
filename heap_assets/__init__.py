"""One Dagster platform that makes Heap and the warehouse agree about who a customer is."""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {"HeapAssetsComponent": "orchestration.component"}
"""Public name to its module, imported when it is asked for; their types are in `__init__.pyi`."""
__all__ = ["HeapAssetsComponent"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
