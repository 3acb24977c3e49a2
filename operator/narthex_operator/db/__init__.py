"""Keep rows: engine, models, migrations."""

from narthex_operator.db.engine import Database, DatabaseError, open_database

__all__ = ["Database", "DatabaseError", "open_database"]
