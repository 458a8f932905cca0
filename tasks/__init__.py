"""Prefect tasks, each with an asynchronous twin."""
