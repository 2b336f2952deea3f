"""What the job store is meant to do, as plain Python over plain records: the oracle of test_model.py.

It knows neither Redis nor time: what time brings about is a fact that the test sets ("the lease has lapsed").
"""

from services.jobs.model.clients import ClientCalls
from services.jobs.model.workers import WorkerCalls


class Model(ClientCalls, WorkerCalls):
    """The whole store. Methods answer "ok", another word, or the name of the error that the store raises."""
