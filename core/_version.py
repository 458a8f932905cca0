"""The version of the installed package, which its build took from the tag of the commit."""

from importlib.metadata import version

__version__ = version("prefect-langgraph")
