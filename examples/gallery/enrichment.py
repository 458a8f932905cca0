"""Every night: rows of a database without an answer are answered by an agent, and written as Parquet.

python examples/gallery/enrichment.py    # needs pyarrow: pip install pyarrow
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, task

from prefect_langgraph import Budget, LangGraphCredentials, RunItem, fan_out, with_finalizer
from prefect_langgraph.testing import run_langgraph_server

BLOCK = "gallery"
AGENT = Path(__file__).resolve().parents[1] / "agent" / "langgraph.json"


@task
def open_questions(database: str, limit: int) -> list[tuple[str, str]]:
    """The rows that nobody has answered yet."""
    asked = "select id, question from questions where answer is null order by id limit ?"
    with sqlite3.connect(database) as connection:
        return connection.execute(asked, (limit,)).fetchall()


@task
def write(rows: list[dict[str, Any]], output: str) -> None:
    """One row of Parquet for each run, also for those that failed: with the reason."""
    columns = ("key", "status", "answer", "error", "seconds", "total_tokens", "run_id")
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    pq.write_table(table, output)


@task
def store(rows: list[dict[str, Any]], database: str) -> None:
    """Into the database goes what succeeded; the next night takes up the rest."""
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "update questions set answer = :answer where id = :key",
            [row for row in rows if row["status"] == "success"],
        )


@with_finalizer(BLOCK)
@flow(retries=1, log_prints=True)
def enrichment(database: str, output: str, limit: int = 10_000) -> None:
    """Answer what is open. A tenth may fail; after fifty failures no more runs are started."""
    items = [
        RunItem(key=key, input={"question": text}) for key, text in open_questions(database, limit)
    ]
    if not items:
        print("Nothing is open")
        return
    result = fan_out(
        "answer",
        items,
        items=True,
        credentials=BLOCK,
        max_in_flight=200,
        max_failures=0.1,
        budget=Budget(failures=50),
    )
    rows = result.to_rows()
    write(rows, output)
    store(rows, database)
    print(f"{len(rows)} rows in {output}")


def example_database(folder: Path) -> str:
    """A database with questions in it."""
    path = str(folder / "questions.db")
    with sqlite3.connect(path) as connection:
        connection.execute("create table questions (id text primary key, question text, answer text)")
        rows = [(f"row-{number}", f"What is {number} x 7?") for number in range(20)]
        connection.executemany("insert into questions (id, question) values (?, ?)", rows)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, run_langgraph_server(AGENT, jobs=10) as server:
        LangGraphCredentials(url=server.url).save(BLOCK, overwrite=True)
        database, output = example_database(Path(name)), str(Path(name, "answers.parquet"))
        enrichment(database, output)
        print(*pq.read_table(output).to_pylist()[:3], sep="\n")
        enrichment(database, output)  # nothing is left to do
