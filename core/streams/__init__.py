"""Reading a run while it works.

| module      | holds |
| ----------- | --- |
| `parts`     | the parts of a run's stream, with a truthful end |
| `reader`    | reading on after a cut, each part once and in order |
| `log_lines` | parts as lines of a log |
| `watchdog`  | a child process that cancels a run when its reader was killed |
"""
