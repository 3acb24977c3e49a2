"""Keep rows: engine, models, migrations."""
