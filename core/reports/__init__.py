"""What Prefect's pages and a terminal show.

| module         | holds |
| -------------- | --- |
| `fan_out_page` | the report of a fan-out |
| `timeline`     | its picture |
| `progress`     | how far a fan-out is, while it goes on |
| `terminal_bar` | the progress bar of a terminal |
| `events`       | events of a fan-out |
| `artifacts`    | tables as artifacts |
| `approvals`    | what people were asked and answered |
"""
