"""What a function may use up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one function; of memory, of a batch's text and of one result in bytes (text: in UTF-16 units).

    `cpu_seconds` is one row's; a batch has that, and `SECONDS_A_ROW` for each of its rows. `wall_seconds` come on top:
    after them a process is ended that the engine could not interrupt.
    """

    memory_bytes: int = 64 << 20
    cpu_seconds: float = 1.0
    wall_seconds: float = 10.0
    output_bytes: int = 16 << 20
    row_bytes: int = 1 << 20
    depth: int = 32
    stack_bytes: int = 512 << 10
    batch: int = 1000
    most_stuck: int = 20
    """Rows of one call that may run into limits; with more the function is broken, and the call ends."""


SECONDS_A_ROW = 0.005
