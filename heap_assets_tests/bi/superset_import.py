"""Imports files into a Superset of its own, twice, and prints what it then has, as JSON.

For an environment that has Superset: `python superset_import.py FOLDER`, where FOLDER has the files.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Import with Superset's own command."""
    config = folder / "superset_config.py"
    lines = [f'SECRET_KEY = "{"x" * 42}"', f'SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/superset.db"']
    # its own caches in the database do not start with every version of their library
    caches = ("CACHE", "DATA_CACHE", "FILTER_STATE_CACHE", "EXPLORE_FORM_DATA_CACHE")
    lines += [f'{name}_CONFIG = {{"CACHE_TYPE": "NullCache"}}' for name in caches]
    config.write_text("\n".join(lines))
    os.environ["SUPERSET_CONFIG_PATH"] = str(config)
    from superset.app import create_app

    with create_app().app_context():
        from flask_appbuilder import Model
        from superset import security_manager
        from superset.commands.dataset.importers.v1 import ImportDatasetsCommand
        from superset.connectors.sqla.models import SqlaTable
        from superset.extensions import appbuilder, db
        from superset.models.core import Database
        from superset.utils.core import override_user

        Model.metadata.create_all(db.engine)
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        admin = security_manager.find_role("Admin")
        user = security_manager.add_user("admin", "A", "B", "a@b.example", admin, password="x")
        contents = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yaml")}
        with override_user(user):
            for _ in range(2):
                ImportDatasetsCommand(dict(contents), overwrite=True).run()
        tables = {
            table.table_name: [len(table.columns), len(table.metrics), bool(table.sql)]
            for table in db.session.query(SqlaTable).all()
        }
        print(json.dumps({"databases": db.session.query(Database).count(), "tables": tables}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
