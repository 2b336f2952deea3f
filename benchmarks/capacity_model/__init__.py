"""A discrete-event model of the whole service, for capacity planning: see docs/capacity.md."""
