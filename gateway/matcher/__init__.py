"""The matcher: one process of a machine that finds questions that share an answer, and learns when that goes wrong.

Started by the supervisor where a rule of `cache.semantic` wants it. Workers ask it over a Unix socket; what they may
give is theirs to check (gateway.stages.semantic).
"""
