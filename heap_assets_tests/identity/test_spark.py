"""The engine on Spark: its properties in an environment that has pyspark, and what its absence looks like here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from heap_assets.errors import SettingsError
from heap_assets.identity import SparkTuning, resolve
from heap_assets.identity.engine.spark import tuning as tuning_module
from heap_assets.project.settings import identity_engine, load_settings, parse_settings
from heap_assets_tests.environments import UnavailableError, environment
from heap_assets_tests.identity.builders import TYPES, Book, links_frame, rules_of

FILES = [Path(__file__).parent / name for name in ("spark_properties.py", "spark_runs.py")]
ROOT = Path(__file__).parents[2]


def test_spark_gives_the_rows_of_the_other_engines(tmp_path: Path) -> None:
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        pytest.skip("there is no Java: the engine on Spark was NOT tested")
    try:
        venv = environment("spark", "pyspark>=4,<5", inherits=True)
    except UnavailableError as missing:
        pytest.skip(f"{missing}: the engine on Spark was NOT tested")
    command = [str(venv / "bin" / "python"), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "default", "--basetemp", str(tmp_path / "spark"), *map(str, FILES)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-1000:]
    assert " passed" in ended.stdout
    assert "skipped" not in ended.stdout


def settings_text(engine: object) -> str:
    content = yaml.safe_load((ROOT / "heap_assets.yaml").read_text())
    content["identity"]["engine"] = engine
    return yaml.safe_dump(content)


class TestSettings:
    """`identity.engine`."""

    def test_spark_is_tuned_by_its_settings(self) -> None:
        text = settings_text({"spark": {"above_links": 0, "parts": 8, "cores": 2, "memory": "2g", "work": "spark"}})
        engine = identity_engine(parse_settings(text, ROOT / "heap_assets.yaml"))
        assert engine == SparkTuning(above_links=0, parts=8, cores=2, memory="2g", work=str(ROOT / "spark"))

    def test_the_settings_have_the_defaults_of_the_engine(self) -> None:
        engine = identity_engine(parse_settings(settings_text({"spark": {}}), ROOT / "heap_assets.yaml"))
        assert engine == SparkTuning()

    @pytest.mark.parametrize(
        ("engine", "message"),
        [
            ("sparks", "identity.engine is 'sparks'; expected: 'native' or 'reference'"),
            ({"spork": {}}, "identity.engine.spork is not a known key. Known: spark."),
            ({"spark": {"part": 8}}, "identity.engine.spark.part is not a known key. Known: above_links, cluster"),
            (
                {"spark": {"cluster": "ray"}},
                "identity.engine.spark.cluster is 'ray'; expected: one of 'local', 'emr_ser",
            ),
            (
                {"spark": {"cluster": "glue", "application_id": "1"}},
                "identity.engine.spark.application_id is not a known",
            ),
            (
                {"spark": {"cluster": "emr", "work": "/mnt"}},
                "identity.engine.spark.work is '/mnt'; expected: an address",
            ),
            (
                {"spark": {"cluster": "emr", "archive": "s3://b/a.tgz", "work": "gs://b/work"}},
                "identity.engine.spark.work is 'gs://b/work'; expected: an s3:// address",
            ),
            (
                {"spark": {"cluster": "databricks", "work": "s3://b/w", "base_url": "https://x", "token": "t"}},
                "identity.engine.spark.libraries",
            ),
            ({"spark": {"memory": "4 GB"}}, "identity.engine.spark.memory is '4 GB'; expected: "),
            ({"spark": {"parts": 0}}, "identity.engine.spark.parts is 0; expected: "),
        ],
    )
    def test_a_mistake_names_its_key(self, engine: object, message: str) -> None:
        with pytest.raises(SettingsError) as error:
            parse_settings(settings_text(engine), ROOT / "heap_assets.yaml")
        assert message in str(error.value)

    @pytest.mark.parametrize(("missing", "advice"), [("pyspark", r"heap_assets\[spark\]"), ("java", "Java 17")])
    def test_what_is_not_installed_is_missed_when_settings_are_loaded(
        self, missing: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tuning_module, "find_spec", lambda _: None if missing == "pyspark" else object())
        monkeypatch.setattr(tuning_module.shutil, "which", lambda _: None)
        monkeypatch.delenv("JAVA_HOME", raising=False)
        file = tmp_path / "heap_assets.yaml"
        file.write_text(settings_text({"spark": {}}))
        with pytest.raises(SettingsError, match=advice):
            load_settings(file)
        with pytest.raises(SettingsError, match=advice):
            resolve(links_frame([]), rules_of(Book(TYPES)), SparkTuning())

    def test_jobs_elsewhere_are_for_runs_and_this_process_resolves_natively(self) -> None:
        cluster = {"cluster": "emr", "archive": "s3://b/a.tgz", "work": "s3://b/work"}
        settings = parse_settings(settings_text({"spark": cluster}), ROOT / "heap_assets.yaml")
        assert identity_engine(settings) == "native"

    def test_a_cluster_that_could_not_read_the_lake_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "heap_assets.yaml"
        file.write_text(settings_text({"spark": {"cluster": "emr", "archive": "s3://b/a.tgz", "work": "s3://b/work"}}))
        with pytest.raises(SettingsError, match=r"cluster is 'emr', which works in s3://, and the lake is"):
            load_settings(file)

    def test_people_are_not_left_in_the_lake_where_no_erasure_looks(self, tmp_path: Path) -> None:
        cluster = {"cluster": "emr", "archive": "s3://b/a.tgz", "work": "s3://b/lake/work"}
        content = yaml.safe_load(settings_text({"spark": cluster}))
        file = tmp_path / "heap_assets.yaml"
        file.write_text(yaml.safe_dump({**content, "lake": "s3://b/lake"}))
        with pytest.raises(SettingsError, match="inside of the lake, where an erasure would not look"):
            load_settings(file)
