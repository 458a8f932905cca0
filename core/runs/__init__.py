"""One run: starting it once, waiting for it, and what became of it.

| module       | holds |
| ------------ | --- |
| `call`       | what a call carries to the shared loop |
| `request`    | one run to start |
| `start`      | starting a run once, or adopting it |
| `poller`     | all waits of a process on a deployment |
| `lookup`     | questions about runs and threads |
| `outcomes`   | what the server said, as a result or an error |
| `usage`      | tokens that one run added |
| `output`     | from what a run left to what it returned |
| `operations` | what the tasks and blocks do with one run |
"""
