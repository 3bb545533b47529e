"""Requests and answers of one chat API said in the words of another. Sans-io, like all of `dialects`."""
