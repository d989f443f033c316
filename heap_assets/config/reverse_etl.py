"""The `reverse_etl:` section: syncs of Hightouch and Census that read what is built or published here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from heap_assets.config.base import Cron, Section


class ReverseEtlSettings(Section, ABC):
    """A sync of another tool, which is started here and waited for; the tool reads the warehouse by itself."""

    kind: str
    token: SecretStr = Field(description="Token of the tool's API")
    sync: int = Field(ge=1, description="Number of the sync there, as its address in the tool shows it")
    reads: list[str] = Field(
        min_length=1,
        description="Assets that the sync reads: publish/<target>/<table>, profiles; it starts when they are new",
    )
    schedule: Cron | None = Field(
        default=None, description="Cron in UTC at which it is started, instead of whenever what it reads was built anew"
    )
    max_rejected: float = Field(
        default=0.05, ge=0, le=1, description="Share of rejected and invalid rows above which the run fails"
    )
    poll_seconds: float = Field(default=15, gt=0, description="Longest wait between two looks at a run")
    timeout_hours: float = Field(
        default=6, gt=0, description="After it a run here fails; the next one goes on waiting for the same run there"
    )
    description: str = Field(default="", description="Description of the asset")

    @property
    @abstractmethod
    def url(self) -> str:
        """The address of the API, without a slash at its end."""


class HightouchSettings(ReverseEtlSettings):
    """A sync of Hightouch."""

    kind: Literal["hightouch"]
    base_url: str = Field(default="https://api.hightouch.com/api/v1", description="Address of the API")

    @property
    def url(self) -> str:
        """The address of the API."""
        return self.base_url.rstrip("/")


class CensusSettings(ReverseEtlSettings):
    """A sync of Census (Fivetran Activations), by version 2 of its API: the token is a personal access token."""

    kind: Literal["census"]
    region: Literal["us", "eu"] = Field(default="us", description="Of the workspace: decides the host")
    base_url: str | None = Field(default=None, description="Address of the API instead of the region's")

    @property
    def url(self) -> str:
        """The address of the API."""
        host = {"us": "app.getcensus.com", "eu": "app-eu.getcensus.com"}[self.region]
        return (self.base_url or f"https://{host}/api/v2").rstrip("/")


ReverseEtlSync = Annotated[HightouchSettings | CensusSettings, Field(discriminator="kind")]
