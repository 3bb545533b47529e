"""The parts that carry one call, in the order it travels: admit, route, attempt, pump, close."""
