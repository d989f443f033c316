from heap_assets.api import Explanation as Explanation
from heap_assets.api import HeapAssetsError as HeapAssetsError
from heap_assets.api import IdentifierRule as IdentifierRule
from heap_assets.api import MissingInputError as MissingInputError
from heap_assets.api import Project as Project
from heap_assets.api import Resolution as Resolution
from heap_assets.api import Rules as Rules
from heap_assets.api import SettingsError as SettingsError
from heap_assets.api import SyncPlan as SyncPlan
from heap_assets.api import Table as Table
from heap_assets.api import resolve as resolve
from heap_assets.orchestration.component import HeapAssetsComponent as HeapAssetsComponent

__version__: str
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
