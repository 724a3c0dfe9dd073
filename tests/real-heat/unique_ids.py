#!/usr/bin/env python3
"""Lets Heat's database, still empty, give no row id twice.

    unique_ids.py FILE

SQLite gives the ids of deleted rows anew, unless a table says AUTOINCREMENT. MySQL
and PostgreSQL never do, and Heat counts on it: a resource remembers the id of the
row with its attributes, which may be deleted behind its back.
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
