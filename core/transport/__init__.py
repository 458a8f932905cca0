"""Talking to a deployment: one loop, one pooled client, one way to send.

| module        | holds |
| ------------- | --- |
| `loop`        | the event loop on an OS thread of its own, which all calls of a process share |
| `termination` | calls on other OS threads end when a signal ends their flow run |
| `generators`  | generators of the shared loop, read from other loops and OS threads |
| `deadline`    | a caller's wall-clock limit |
| `connection`  | where a deployment is and how to talk to it |
| `deployment`  | the client of a connection, and sending requests with patience |
| `answers`     | whether an answer is the deployment's own, or a gateway's |
| `http_errors` | what the SDK raised, as errors of this package |
| `paging`      | the pages of a search, and a bounded number of requests at once |
"""
