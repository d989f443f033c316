"""What all sections share: unknown keys are mistakes, values do not change after loading."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of heap_assets.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
