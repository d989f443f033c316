"""Where Spark runs that resolves identities: `identity.engine.spark`, one model for each kind of cluster."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from heap_assets.config.base import Section


class SparkSettings(Section):
    """What all kinds of cluster have."""

    above_links: int = Field(
        default=300_000_000, ge=0, description="Up to so many rows of links the native engine is used; 0: always Spark"
    )
    parts: int = Field(default=64, ge=1, le=100_000, description="Partitions of what is shuffled, files of the graph")
    largest_component: int = Field(
        default=50_000_000, ge=1, description="Identifiers that links of any kind may hold together before a run fails"
    )


class LocalSpark(SparkSettings):
    """Apache Spark on the machine of the run, in a process of its own."""

    cluster: Literal["local"] = Field(default="local", description="Where Spark runs: on the machine of the run")
    work: str | None = Field(
        default=None, description="Folder for what one step hands to the next; the one for temporary files unless given"
    )
    cores: int | None = Field(default=None, ge=1, description="Tasks at a time; one for each core unless given")
    memory: str = Field(default="4g", description="Heap of the Java process, such as 800m or 16g")

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9][0-9]{0,8}[mg]", value):
            raise ValueError("a number of megabytes or gigabytes such as 800m or 16g")
        return value


class ClusterSettings(SparkSettings):
    """A Spark elsewhere. The job reads the lake and writes below `work` with the rights of its cluster."""

    work: str = Field(
        description="Prefix for orders, messages and results of jobs; give it a lifecycle rule of two days",
    )
    conf: dict[str, str] = Field(default={}, description="Further settings of Spark, by their names")
    poll_seconds: float = Field(default=30, gt=0, description="Wait between two looks at a job")
    timeout_hours: float = Field(default=24, gt=0, description="After it a job is cancelled, and the run fails")

    @field_validator("work")
    @classmethod
    def _is_a_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(s3|gs)://[^/]+/.+", value):
            raise ValueError("an address such as s3://bucket/prefix or gs://bucket/prefix")
        return value


class _AmazonSettings(ClusterSettings):
    region: str | None = Field(default=None, description="Region; that of the environment unless given")

    @field_validator("work")
    @classmethod
    def _is_in_s3(cls, value: str) -> str:
        if not value.startswith("s3://"):
            raise ValueError("an s3:// address, which a cluster of AWS can read")
        return value


_ARCHIVE = "Archive (tar.gz, of venv-pack) of Python 3.11 with heap_assets of this version, in the bucket"


class EmrServerlessSpark(_AmazonSettings):
    """A job of Amazon EMR Serverless, on an application that exists."""

    cluster: Literal["emr_serverless"] = Field(description="Where Spark runs: on EMR Serverless")
    application_id: str = Field(description="Application, of type Spark")
    execution_role_arn: str = Field(description="Role of the job, which may read the lake and write below `work`")
    archive: str = Field(description=_ARCHIVE)
    log_uri: str | None = Field(default=None, description="Prefix for logs of the job")


class EmrSpark(_AmazonSettings):
    """A cluster of Amazon EMR that is started for each job and ends with it."""

    cluster: Literal["emr"] = Field(description="Where Spark runs: on EMR")
    release: str = Field(default="emr-7.10.0", pattern=r"^emr-[0-9.]+$", description="Release of EMR")
    archive: str = Field(description=_ARCHIVE)
    driver_type: str = Field(default="m6i.2xlarge", description="Instance type of the primary node")
    worker_type: str = Field(default="r6i.4xlarge", description="Instance type of the core nodes")
    workers: int = Field(default=4, ge=1, description="Number of core nodes")
    subnet: str | None = Field(default=None, description="Subnet of the instances")
    service_role: str = Field(default="EMR_DefaultRole", description="Role of the service")
    instance_profile: str = Field(default="EMR_EC2_DefaultRole", description="Instance profile: the rights of the job")
    log_uri: str | None = Field(default=None, description="Prefix for logs of the cluster")


class GlueSpark(_AmazonSettings):
    """A run of a job of AWS Glue that exists, of Glue 5.0 (Spark 3.5, Python 3.11) or newer."""

    cluster: Literal["glue"] = Field(description="Where Spark runs: on Glue")
    job: str = Field(description="Name of the job; its script is replaced for the run")
    worker_type: str = Field(default="R.4X", description="Type of the workers")
    workers: int = Field(default=10, ge=2, description="Number of workers")
    modules: list[str] = Field(
        min_length=1, description="What pip installs on the workers: the wheel of heap_assets of this version, its path"
    )

    @field_validator("conf")
    @classmethod
    def _has_no_conf(cls, value: dict[str, str]) -> dict[str, str]:
        if value:
            raise ValueError("nothing: Glue reserves this argument, so set it in the job itself")
        return value


class DataprocSpark(ClusterSettings):
    """A job on a cluster of Google Dataproc that exists."""

    cluster: Literal["dataproc"] = Field(description="Where Spark runs: on Dataproc")
    project: str = Field(description="Project of the cluster")
    region: str = Field(pattern=r"^[a-z0-9-]+$", description="Region of the cluster")
    cluster_name: str = Field(description="Name of the cluster")
    archive: str = Field(description=_ARCHIVE)
    base_url: str | None = Field(default=None, description="Address of the API instead of the region's")

    @field_validator("work")
    @classmethod
    def _is_in_google(cls, value: str) -> str:
        if not value.startswith("gs://"):
            raise ValueError("a gs:// address, which Dataproc can read")
        return value

    @property
    def url(self) -> str:
        """The address of the API, without a slash at its end."""
        return (self.base_url or f"https://{self.region}-dataproc.googleapis.com").rstrip("/")


class DatabricksSpark(ClusterSettings):
    """A one-time run of Databricks, on a cluster that exists or on one of its own."""

    cluster: Literal["databricks"] = Field(description="Where Spark runs: on Databricks")
    base_url: str = Field(pattern=r"^https?://", description="Address of the workspace")
    token: SecretStr = Field(description="Token of a user or service principal that may submit runs")
    cluster_id: str | None = Field(default=None, description="Cluster that exists; else `new_cluster`")
    new_cluster: dict[str, Any] | None = Field(
        default=None, description="Cluster for the run, as the API of Databricks describes one (`spark_version`, …)"
    )
    libraries: list[str] = Field(min_length=1, description="Wheels that are installed: heap_assets of this version")

    @model_validator(mode="after")
    def _has_one_cluster(self) -> DatabricksSpark:
        if (self.cluster_id is None) == (self.new_cluster is None):
            raise ValueError("give cluster_id or new_cluster, one of the two")
        if self.conf and self.new_cluster is None:
            raise ValueError("conf needs new_cluster: a cluster that exists has its own settings")
        return self

    @property
    def url(self) -> str:
        """The address of the workspace, without a slash at its end."""
        return self.base_url.rstrip("/")


AnySpark = Annotated[
    LocalSpark | EmrServerlessSpark | EmrSpark | GlueSpark | DataprocSpark | DatabricksSpark,
    Field(discriminator="cluster"),
]


class SparkEngine(Section):
    """Spark in place of the engines of one process; the rows are the same."""

    spark: AnySpark = Field(description="Where Spark runs, and from which size on it is used")

    @model_validator(mode="before")
    @classmethod
    def _is_local_unless_said(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(spark := value.get("spark"), dict) and "cluster" not in spark:
            return {**value, "spark": {"cluster": "local", **spark}}
        return value
