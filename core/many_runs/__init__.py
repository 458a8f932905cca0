"""Thousands of runs: batches, a limit on those in flight, joins, and files of results.

| module        | holds |
| ------------- | --- |
| `batch`       | starting many runs once, some hundreds per request |
| `engine`      | a fan-out: a limited number in flight until all have ended |
| `budget`      | whether a budget is used up |
| `join`        | waiting for many runs, and cancelling them |
| `result_file` | files of inputs and of results |
"""
