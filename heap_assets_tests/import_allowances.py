"""Imports that still go past the public interface of a room: importing room to modules. Only ever becomes less."""

DEEP_IMPORTS: dict[str, tuple[str, ...]] = {}
