"""The table in the middle: rows as SQL over DuckDB, who is drawn from them, and how tables are read."""
