"""What is sent in headers: which of them a graph will see, and tokens that are fetched.

| module     | holds |
| ---------- | --- |
| `policy`   | `HeaderPolicy`, and the headers of a request |
| `lint`     | what is doubtful in a policy |
| `patterns` | the server's patterns of header names |
| `tokens`   | `Token`, and short-lived tokens that are fetched when a request needs one |
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
from prefect_langgraph.headers.tokens import Token

__all__ = [
    "DEFAULT_DENY",
    "HeaderPolicy",
    "HeaderPolicyError",
    "HeaderPolicyWarning",
    "HeaderValue",
    "HeaderViolation",
    "LintWarning",
    "OnViolation",
    "Token",
    "merge_headers",
    "validate_headers",
]
