"""A server that refuses for a reason that cannot be seen."""

from __future__ import annotations

import pytest

from prefect_langgraph import InvalidRequestError, LangGraphCredentials, run_stateless
from proxy import Answer, Proxy

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_conflict_with_a_run_that_is_not_there_is_raised_and_not_asked_for_ever(proxy: Proxy) -> None:
    proxy.on("POST", r"/threads/[^/]+/runs$", Answer(409), times=None)
    credentials = LangGraphCredentials(url=proxy.url, patience_seconds=1)
    with pytest.raises(InvalidRequestError) as caught:
        run_stateless("answer", {}, credentials=credentials)
    assert caught.value.status_code == 409
    assert proxy.count("POST", r"/threads/[^/]+/runs$") < 30
