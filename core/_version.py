"""The version of the installed package, which its build took from the tag of the commit."""

from importlib.metadata import distributions, version
from pathlib import Path

# What lies beside the package is its own. Elsewhere on the path, as in a clone where a flow is run,
# there may be what an editable installation left behind.
_BESIDE = str(Path(__file__).resolve().parents[1])

__version__ = next(
    (found.version for found in distributions(name="prefect-langgraph", path=[_BESIDE])),
    None,
) or version("prefect-langgraph")
