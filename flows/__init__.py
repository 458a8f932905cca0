"""Flows ready to deploy, and the finalizer."""
