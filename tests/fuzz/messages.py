"""Strategies for the API's messages, made from their descriptors: a new field is fuzzed from the day it is there."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
USUAL = (0, 1, 2, 3, 33, 64, 66, 128, 384, 640)
MAX_FIELDS, MAX_LIST = 5, 4
NASTY = (
    "",
    "a lake",
    "\0",
    "a\0b",
    "../../etc/passwd",
    "helios:{default}:job:x",
    "*",
    "%s%n{}",
    "\U0001f30a" * 300,
    "x" * 9000,
    "\u202e\ufeff\r\n",
    "-1",
    "1e999",
    "image/png",
    "video/mp4",
)


SENSIBLE = {"prompt": ("a lake", "the sun rises"), "content_type": ("image/png", "video/mp4")}
"""Values by field name that get a request past its first check."""
LIKELY = frozenset({"prompt", "job_id", "params", "job"})
"""Fields without which a request gets nowhere: set three times in four."""


def messages(descriptor: Descriptor, ids: Sequence[str]) -> st.SearchStrategy[Message]:
    """Messages with some of their fields set. ids: of jobs that exist, then of the model."""
    kind = GetMessageClass(descriptor)
    if not descriptor.fields:
        return st.just(kind())

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = kind()
        names = st.lists(st.sampled_from(tuple(descriptor.fields)), unique_by=lambda f: f.name, max_size=MAX_FIELDS)
        fields = {field.name: field for field in draw(names)}
        for field in descriptor.fields:
            if field.name in LIKELY and field.containing_oneof is None and draw(st.integers(0, 3)):
                fields[field.name] = field
        for field in fields.values():
            _set(message, field, draw(_field(field, ids)))
        return message

    return build()


def _field(field: FieldDescriptor, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (_single(part, ids) for part in field.message_type.fields)
            return st.dictionaries(key, value, max_size=MAX_LIST)
        few = st.lists(_single(field, ids), max_size=MAX_LIST)
        many = _single(field, ids).flatmap(lambda entry: st.sampled_from((17, 300, 1500)).map(lambda n: [entry] * n))
        return few | few | few | many
    return _single(field, ids)


def _single(field: FieldDescriptor, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return st.sampled_from([number for number in (*USUAL, low, high) if low <= number <= high]) | st.integers(
            low, high
        )
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=64 if kind == FieldDescriptor.CPPTYPE_DOUBLE else 32) | st.sampled_from((0.0, 0.5, 1.0))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.integers(-(2**31), 2**31 - 1)
    if field.message_type is not None:
        return messages(field.message_type, ids)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=200) | st.sampled_from((b"", b"\x89PNG\r\n\x1a\n", b"x" * 100_000))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    usual: Sequence[str] = SENSIBLE.get(field.name, ())
    if field.name in ("job_id", "continue_from"):
        usual = ids[:-1]
    elif field.name == "model":
        usual = ids[-1:]
    anything = st.sampled_from((*NASTY, *ids)) | text
    return st.sampled_from(usual) | st.sampled_from(usual) | anything if usual else anything


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    target = getattr(message, field.name)
    if isinstance(value, Message):
        target.CopyFrom(value)
        target.SetInParent()
    elif isinstance(value, dict):
        for key, entry in value.items():
            if isinstance(entry, Message):
                target[key].CopyFrom(entry)
            else:
                target[key] = entry
    elif field.is_repeated:
        target.extend(value)
    else:
        setattr(message, field.name, value)
