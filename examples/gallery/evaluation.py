"""Two assistants on one data set: which one is better, and what does it cost?

python examples/gallery/evaluation.py
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from prefect_langgraph import LangGraphCredentials, RunItem, RunResult, fan_out, with_finalizer
from prefect_langgraph.testing import run_langgraph_server

BLOCK = "gallery"
AGENT = Path(__file__).resolve().parents[1] / "agent" / "langgraph.json"


@task
def score(run: RunResult, expected: str) -> bool:
    """Put your own measure here, or a model that judges."""
    return run.status == "success" and expected in run.values["messages"][-1]["content"]


@with_finalizer(BLOCK)
@flow(log_prints=True)
def evaluation(assistants: dict[str, str], cases: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Run every case with every assistant, in one fan-out, so that both meet the same server.

    Args:
        assistants: The id of each assistant, by the name that the table shows.
        cases: A text for the assistant and what its answer must hold, by a name.
    """
    items = [
        RunItem(
            key=f"{name}/{case}",
            assistant_id=assistant_id,
            input={"messages": [{"role": "user", "content": text}]},
        )
        for name, assistant_id in assistants.items()
        for case, (text, _) in cases.items()
    ]
    result = fan_out("chat", items, items=True, credentials=BLOCK, on_failure="collect")
    runs = dict(zip((item.key for item in items), result, strict=True))
    right = {
        name: [score(runs[f"{name}/{case}"], expected) for case, (_, expected) in cases.items()]
        for name in assistants
    }
    create_table_artifact(
        [
            {"assistant": name, "right": share(right[name]), "tokens": tokens(runs, name)}
            for name in assistants
        ],
        key="evaluation",
        description=f"{len(cases)} cases",
    )
    return {name: share(right[name]) for name in assistants}


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


def tokens(runs: dict[str | None, RunResult], name: str) -> int:
    """What the runs of an assistant report."""
    of_it = [run for key, run in runs.items() if key is not None and key.startswith(f"{name}/")]
    return sum(run.usage.total_tokens for run in of_it if run.usage is not None)


if __name__ == "__main__":
    with run_langgraph_server(AGENT, jobs=10) as server:
        block = LangGraphCredentials(url=server.url)
        block.save(BLOCK, overwrite=True)
        with block.get_sync_client() as client:
            made = {
                name: client.assistants.create("chat", config={"configurable": {"name": name}})
                for name in ("Ada", "Bob")
            }
        cases = {"polite": ("Hello", "Ada heard"), "first": ("What?", "turn 1")}
        shares = evaluation({name: row["assistant_id"] for name, row in made.items()}, cases)
        print(shares)
