from heap_assets.orchestration.component import HeapAssetsComponent as HeapAssetsComponent

__version__: str
__all__ = ["HeapAssetsComponent"]
