#!/usr/bin/env python3
"""Makes the row ids of Heat's empty database unique for ever.

    unique_ids.py FILE

SQLite reuses the ids of deleted rows unless a table has AUTOINCREMENT. MySQL and
PostgreSQL never do, and Heat relies on that: a resource stores the id of the row
with its attributes, which may have been deleted meanwhile.
"""
import re
import sqlite3
import sys

KEY = "\tid INTEGER NOT NULL"
database = sqlite3.connect(sys.argv[1])
tables = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
for name, sql in tables.fetchall():
    if KEY not in sql:
        continue
    (rows,) = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()
    if rows:
        sys.exit(f"{name} is not empty")
    sql = sql.replace(KEY, "\tid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", 1)
    sql, keys = re.subn(r",\s*PRIMARY KEY \(id\)", "", sql)
    if keys != 1:
        sys.exit(f"{name} has another key than its id")
    indexes = database.execute(
        "SELECT sql FROM sqlite_master"
        " WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (name,)).fetchall()
    database.execute(f'DROP TABLE "{name}"')
    for (statement,) in [(sql,), *indexes]:
        database.execute(statement)
database.commit()
