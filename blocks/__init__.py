"""Prefect blocks.

| module        | holds |
| ------------- | --- |
| `credentials` | how to reach a deployment, and finding a saved block by its name |
| `assistant`   | an assistant of a deployment, as a job |
| `form`        | how Prefect's pages show a block |
"""
