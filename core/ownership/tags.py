"""The names of the tags that tell which flow run owns something on a deployment."""

from __future__ import annotations

import uuid

FLOW_RUN_ID = "prefect_flow_run_id"

ROOT_FLOW_RUN_ID = "prefect_root_flow_run_id"

TASK_RUN_ID = "prefect_task_run_id"

DEPLOYMENT_ID = "prefect_deployment_id"

API = "prefect_api"

KEY = "prefect_key"

OWNS_THREAD = "prefect_owns_thread"

CLAIM = "prefect_claim"

BATCH = "prefect_batch"

CALL = "prefect_call"
"""Under a key that the caller chose: the operation, and a digest of each of its arguments."""

TARGET_THREAD = "prefect_target_thread_id"
"""On a claim: the caller's thread that its run is on, where runs cannot be searched for by tags."""

NO_ANSWER = "prefect_no_answer"
"""On a throw-away thread that stopped at an interrupt: its call is over, so nobody will answer."""

ATTEMPT = "prefect_attempt"
"""On a run with a key: the flow run at the top, its attempt, and how many retries within that."""

SUSPENDED = "prefect_suspended"
"""On a throw-away thread without a run: its flow run was suspended at least once, and may end so."""

ANSWERS = "prefect_answers"
"""On a run that goes on with a person's answer: the run that asked."""

CONTINUES = "prefect_continues"
"""On a run of a later attempt that goes on where one with a person's answer failed: that one."""

TAG_PREFIX = "prefect_"

FINALIZER_MARK = "prefect_langgraph_finalizer"
"""Attribute of the hooks that `with_finalizer` adds, by which a task knows that it is under one.

Its value is how many seconds without a sign of life end the flow run's leases.
"""

_NAMESPACE = uuid.UUID("3f0ad0c2-7d35-5d0a-9a55-3a3f0c6c4c51")


def thread_id_of(key: str) -> str:
    """The id of the thread that belongs to a key: its dedicated thread, or its claim."""
    return str(uuid.uuid5(_NAMESPACE, key))
