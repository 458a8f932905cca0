"""A person answers in Prefect, and the agent goes on.

Invariants:
- Only the present counts: the newest run of a thread is busy, has ended, or asks.
- An answer is in Prefect before the process that sends it exists. It is found by run and interrupt,
  never by its place in a form.
- An answer makes at most one run, and is sent only while the run that asked is its thread's newest; all
  interrupts of a thread are answered in one resume.
- What an answer must look like is checked before anything is sent. What the graph refuses all the same
  is asked again, with its reason.
- At the deadline the default reply goes the same way as a person's answer, so the first wins.
- What an agent says is untrusted, and never rendered.

| module | holds |
|---|---|
| `questions` | what an interrupted run asks, in the words of whichever library asks |
| `replies` | what is sent for an answer, checked |
| `page` | the text above a form |
| `form` | its fields, and what was put in them |
| `record` | a form as it is kept in Prefect, and the answers of a flow run |
| `storage` | forms and responses as inputs of flow runs |
| `present` | how a thread stands now, and the run that goes on with an answer |
| `asking` | one form in front of a person |
| `rounds` | waiting, asking, answering, until nothing is interrupted |
"""
