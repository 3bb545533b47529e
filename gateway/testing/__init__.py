"""Shipped test doubles: users test their agents with them."""
