"""Stores whose libraries a worker loads only where they are configured.

Nothing else imports these modules, so that a gateway without Redis neither pays for the client nor needs it. They are
named here, once, and everything after the import is typed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gateway.config.schema import Spending

if TYPE_CHECKING:
    from gateway.stores.redis_budgets import RedisBudgets
    from gateway.stores.redis_reader import RedisReader


def redis_budgets(settings: Spending, state: Path) -> RedisBudgets:
    """To be called in the loop that will use it. Raises OSError, sqlite3.Error (its mirror), ValueError (the URL)."""
    module = importlib.import_module("gateway.stores.redis_budgets")
    return cast("RedisBudgets", module.RedisBudgets(settings, state))


def redis_reader(settings: Spending) -> RedisReader:
    """Raises ValueError for a URL that is none."""
    module = importlib.import_module("gateway.stores.redis_reader")
    return cast("RedisReader", module.RedisReader(settings))
