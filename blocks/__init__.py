"""Prefect blocks: how to reach a deployment, and an assistant of it."""
