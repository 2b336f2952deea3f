"""The page of the gRPC API, from the proto file and its comments."""

import re
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
PROTO = "helios/v1/video_generation.proto"
HEAD = """# gRPC API

Written from `protos/helios/v1/video_generation.proto`. How the calls are used, with examples: [API](../api.md).

"""
Path_ = tuple[int, ...]


def page() -> str:
    """Markdown: the calls, then every message and enumeration with its fields."""
    file = _described()
    comments: dict[Path_, str] = {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }
    parts = [HEAD]
    for number, service in enumerate(file.service):
        path: Path_ = (FileDescriptorProto.SERVICE_FIELD_NUMBER, number)
        parts.append(f"## {file.package}.{service.name} {{ #{service.name} }}\n\n{comments.get(path, '')}\n\n")
        for index, method in enumerate(service.method):
            parts.append(_method(method, comments.get((*path, 2, index), "")))
    parts.append("## Messages\n\n")
    for number, message in enumerate(file.message_type):
        parts.append(_message(message, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, number), comments, ""))
    parts.append("## Enumerations\n\n")
    for number, enum in enumerate(file.enum_type):
        parts.append(_enum(enum, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, number), comments))
    return "".join(parts)


def _described() -> FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        well_known = files("grpc_tools") / "_proto"
        flags = ["--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *flags, PROTO]) != 0:
            raise ValueError(f"{PROTO}: protoc failed")
        (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def _method(method: MethodDescriptorProto, comment: str) -> str:
    takes = ("stream of " if method.client_streaming else "") + _reference(method.input_type)
    gives = ("stream of " if method.server_streaming else "") + _reference(method.output_type)
    return f"### {method.name} {{ #{method.name} }}\n\n{comment}\n\nTakes: {takes}. Returns: {gives}.\n\n"


def _message(message: DescriptorProto, path: Path_, comments: dict[Path_, str], above: str) -> str:
    name = f"{above}{message.name}"
    parts = [f"### {name} {{ #{name} }}\n\n{comments.get(path, '')}\n\n"]
    for index, field in enumerate(message.field):
        comment = comments.get((*path, DescriptorProto.FIELD_FIELD_NUMBER, index), "")
        oneof = field.HasField("oneof_index") and not field.proto3_optional
        note = f" One of `{message.oneof_decl[field.oneof_index].name}`." if oneof else ""
        parts.append(f"`{field.name}` ({_type(field, message)})\n:   {comment}{note}\n\n")
    for index, inner in enumerate(message.nested_type):
        if not inner.options.map_entry:
            place = (*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, index)
            parts.append(_message(inner, place, comments, f"{name}."))
    return "".join(parts)


def _enum(enum: EnumDescriptorProto, path: Path_, comments: dict[Path_, str]) -> str:
    rows = "".join(
        f"`{value.name}` ({value.number})\n:   {comments.get((*path, 2, index), '')}\n\n"
        for index, value in enumerate(enum.value)
    )
    return f"### {enum.name} {{ #{enum.name} }}\n\n{comments.get(path, '')}\n\n{rows}"


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    entries = {inner.name: inner for inner in message.nested_type if inner.options.map_entry}
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_plain(entry.field[0])} to {_plain(entry.field[1])}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"list of {_plain(field)}"
    return f"{_plain(field)}, optional" if field.proto3_optional else _plain(field)


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _reference(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _reference(name: str) -> str:
    own = re.fullmatch(r"\.helios\.v1\.(.+)", name)
    return f"[{own[1]}](#{own[1]})" if own else f"`{name.removeprefix('.')}`"
