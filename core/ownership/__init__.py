"""Who owns what is created on a deployment, and how a second attempt finds it.

| module      | holds |
| ----------- | --- |
| `tags`      | the metadata keys |
| `owner`     | the flow run and task run for which something is created |
| `keys`      | what a call is recognised by |
| `calls`     | what a chosen key was given for |
| `claims`    | threads that the server lets only one caller create |
| `heartbeat` | signs of life of a flow run's process |
| `pruning`   | deleting throw-away threads, many at a time |
"""
