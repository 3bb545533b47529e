"""Tollgate: one gate that every LLM and tool call of an agent passes through."""

__version__ = "0.1.0"
