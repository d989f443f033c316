"""One Dagster platform that makes Heap and the warehouse agree about who a customer is."""

__version__ = "0.1.0"
