"""Every call, with every field of its request set to anything: the answer blames the caller or serves it."""

import pytest
from fuzz.cases import cases, edited, edits
from fuzz.messages import messages
from fuzz.target import SERVICE, Target
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import event, given
from hypothesis import strategies as st

from helios.v1 import video_generation_pb2 as pb

METHODS = tuple(sorted(SERVICE.methods, key=lambda method: method.name == "CancelJob"))
"""CancelJob last: until then the jobs that cases name are there."""
MESSAGES, BYTES = 0.5 / len(METHODS), 0.15 / len(METHODS)
MAX_REQUESTS = 4
OPENINGS: dict[str, list[Message]] = {
    "UploadMedia": [
        pb.UploadMediaRequest(metadata=pb.MediaMetadata(content_type="image/png")),
        pb.UploadMediaRequest(data=b"\x89PNG\r\n\x1a\n"),
    ],
    "Interact": [pb.InteractRequest(start=pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake")))],
}
"""Good first messages of streaming calls, so that some cases get further."""


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_any_message(target: Target, method: MethodDescriptor) -> None:
    least, most = (0, MAX_REQUESTS) if method.client_streaming else (1, 1)

    anything = st.lists(messages(method.input_type, target.ids), min_size=least, max_size=most)
    opened = anything.map(lambda rest: [*OPENINGS[method.name], *rest]) if method.client_streaming else anything

    @cases(MESSAGES)
    @given(requests=anything | opened)
    def attempt(requests: list[Message]) -> None:
        bodies = [request.SerializeToString() for request in requests]
        code = target.call(method, bodies)
        event(code.name)  # shown by --hypothesis-show-statistics
        target.check_answer(method, code)
        target.check_serving()

    attempt()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_any_bytes(target: Target, method: MethodDescriptor) -> None:
    mutated = st.builds(
        lambda message, changes: edited(message.SerializeToString(), changes),
        messages(method.input_type, target.ids),
        edits(),
    )

    @cases(BYTES)
    @given(body=st.binary(max_size=300) | mutated)
    def attempt(body: bytes) -> None:
        code = target.call(method, [body])
        event(code.name)
        target.check_answer(method, code)
        target.check_serving()

    attempt()
