"""A copy-on-write store: reads come from a base store, writes go to a scratch folder. Dry runs of settings use it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heap_assets.storage.store import ObjectInfo, Store


class OverlayStore(Store):
    """The objects of `base` with those written or deleted here in place of theirs; `base` is never written to.

    Parameters
    ----------
    base
        Is only read.
    folder
        Where writes go; a local folder.
    without
        Folders of the base that are as if they were empty.
    """

    def __init__(self, base: Store, folder: Path, without: Iterable[str] = ()) -> None:
        super().__init__(str(folder))
        self.options = base.options
        self.base = base
        self._deleted: set[str] = {info.key for prefix in without for info in base.list(prefix)}

    def child(self, prefix: str) -> Store:
        """Return the overlay of everything below `prefix`."""
        return OverlayStore(self.base.child(prefix), self.root / prefix.strip("/"))

    def uri(self, key: str) -> str:
        """Return the address of an object where it lies: here, or in the base."""
        return super().uri(key) if self._is_local(key) else self.base.uri(key)

    def local_path(self, key: str) -> Path | None:
        """Return the file of an object; None if it lies in an object store."""
        return super().local_path(key) if self._is_local(key) else self.base.local_path(key)

    def read(self, key: str) -> bytes:
        """Return an object's bytes; FileNotFoundError if there is none."""
        if self._is_local(key):
            return super().read(key)
        if key in self._deleted:
            raise FileNotFoundError(self.uri(key))
        return self.base.read(key)

    def fetched(self, key: str, path: Path) -> Path:
        """Return a file with an object's bytes, which is its own or a copy at `path`."""
        return super().fetched(key, path) if self._is_local(key) else self.base.fetched(key, path)

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object without reading it; None if there is none."""
        if self._is_local(key):
            return super().head(key)
        return None if key in self._deleted else self.base.head(key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False if there is one."""
        return not self.exists(key) and super().create(key, data)

    def delete(self, key: str) -> None:
        """Hide an object; nothing happens if it is gone already."""
        super().delete(key)
        self._deleted.add(key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return all objects whose key starts with the folder `prefix`, sorted by key."""
        objects = {info.key: info for info in self.base.list(prefix) if info.key not in self._deleted}
        objects |= {info.key: info for info in super().list(prefix)}
        return [objects[key] for key in sorted(objects)]

    @property
    def is_missing(self) -> bool:
        """Whether the base is an empty place, as one where a disk would be mounted."""
        return self.base.is_missing

    def _is_local(self, key: str) -> bool:
        return (self.root / key).is_file()

    def _read_with_info(self, key: str) -> tuple[bytes | None, ObjectInfo | None]:
        info = self.head(key)
        return (self.read(key) if info else None), info
