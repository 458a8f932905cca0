"""Which headers a graph will see, checked before a request where a block carries a policy.

| module     | holds |
| ---------- | --- |
| `policy`   | `HeaderPolicy`, and the headers of a request |
| `lint`     | what is doubtful in a policy |
| `patterns` | the server's patterns of header names |
"""

from prefect_langgraph.errors import HeaderPolicyError
from prefect_langgraph.headers.lint import LintWarning
from prefect_langgraph.headers.policy import (
    DEFAULT_DENY,
    HeaderPolicy,
    HeaderPolicyWarning,
    HeaderValue,
    HeaderViolation,
    OnViolation,
    merge_headers,
    validate_headers,
)

__all__ = [
    "DEFAULT_DENY",
    "HeaderPolicy",
    "HeaderPolicyError",
    "HeaderPolicyWarning",
    "HeaderValue",
    "HeaderViolation",
    "LintWarning",
    "OnViolation",
    "merge_headers",
    "validate_headers",
]
