"""Just enough SVG: elements as text, escaped; a document that needs no network, font or script."""

from __future__ import annotations

from html import escape

INK, MUTED, PAPER = "#1f2933", "#7b8794", "#ffffff"
ALARM, AMBER = "#c62828", "#b26a00"
HUES = ("#2f6db3", "#2e7d52", "#8a4fb0", "#b0632f", "#26808a", "#a83f6f", "#6b7030", "#57606a")
"""Told apart by people with the common forms of colour blindness when labelled, as they always are here."""


def element(name: str, *children: str, **attributes: str | float) -> str:
    """Return one element; `_` in attribute names stands for `-`, children are markup and must be escaped already."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_number(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def label(x: float, y: float, words: str, **attributes: str | float) -> str:
    """Return text at a place."""
    return element("text", escape(words), x=x, y=y, **{"fill": INK, **attributes})


def tip(words: str) -> str:
    """Return the text shown when pointed at."""
    return element("title", escape(words))


def document(width: float, height: float, title: str, *children: str) -> str:
    """Return a whole picture on white paper."""
    return element(
        "svg",
        tip(title),
        element("rect", width="100%", height="100%", fill=PAPER),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        width=width,
        height=height,
        font_family="system-ui, sans-serif",
        font_size=12,
    )


def shortened(words: str, length: int) -> str:
    """Cut out the middle of what is too long: both ends of an identifier tell it apart."""
    if len(words) <= length:
        return words
    return f"{words[: (length - 1 + 1) // 2]}…{words[-((length - 1) // 2) :]}"


def _number(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
