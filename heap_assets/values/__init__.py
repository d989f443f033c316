"""How values are spelled: JSON with all digits, times in text, column names."""

from heap_assets.values.column_names import PREFIX, PRIVATE, apart, original, set_apart
from heap_assets.values.fitting import double_spelled, fitting, in_zone, nearest_double
from heap_assets.values.json_text import (
    exact_json,
    json_lost,
    json_or_exact,
    json_safe,
    json_text,
    json_texts,
    value_as_json,
)
from heap_assets.values.text import as_text, key_text
from heap_assets.values.text_times import TIME, read_times

__all__ = [
    "PREFIX",
    "PRIVATE",
    "TIME",
    "apart",
    "as_text",
    "double_spelled",
    "exact_json",
    "fitting",
    "in_zone",
    "json_lost",
    "json_or_exact",
    "json_safe",
    "json_text",
    "json_texts",
    "key_text",
    "nearest_double",
    "original",
    "read_times",
    "set_apart",
    "value_as_json",
]
