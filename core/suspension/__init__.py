"""Waiting for hours without a process: a flow run suspends itself, and is resumed when its runs ended.

State lives in Prefect and on the deployment, never in a process. One call of `suspend_until_ended`:

    LOOK         all have ended: return
    stay         look again and again for `stay_seconds`, since a wake-up costs a process start
    RECORD       once, as an input of the flow run: what is waited for, and until when
    SUSPEND      with a pause key that was never used before
    LOOK AGAIN   in the process that has just suspended: if all have ended it resumes its own flow run,
                 which closes the race between the end of a run and the suspension

A flow run that is resumed is executed from the top, adopts its runs and comes to the same call.

Invariants:
- Whoever resumes, rightly or not, too early, twice or too late, leads to LOOK. So a click, a webhook
  and a resumer are hints, and none of them can be wrong.
- Never suspended without a record. A record never changes, so the deadline is the first execution's.
- At the deadline a flow run is resumed, and its own code raises. Prefect's own timeout of a suspension
  is not used: it fails the flow run without a hook.
- The deployment is asked before anybody is resumed. Where it cannot be asked, nobody is.
- Only pause keys of ours are touched: a form, or a user's own suspension, is not the resumer's
  business.
- What was cancelled, failed or deleted while it was suspended ran no hook, so the resumer releases what
  it owns, and so does the sweep.

| module | holds |
|---|---|
| `record` | what a suspended flow run waits for, as text, with its name and its pause keys |
| `storage` | records as inputs of flow runs |
| `obstacles` | why a flow run cannot suspend |
| `look` | which runs have not ended |
| `wait` | the five steps of a call |
| `suspended` | Prefect's suspended flow runs: found, resumed, failed |
| `verdict` | whether a suspended flow run is due |
| `models` | what a pass of the resumer reports |
| `resumer` | one pass over all suspended flow runs |
"""
