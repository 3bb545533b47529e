"""Projections of the journal: ledger, metrics, traces, logs."""
