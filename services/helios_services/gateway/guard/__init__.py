"""Who calls, what they may, how much of the gateway they may hold, and how they are refused: the same at every door."""
