"""The parts of the load test: the processes under load, and what loads them. See benchmarks/load_test.py."""
