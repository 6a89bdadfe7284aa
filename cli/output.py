"""The end of a command: its object as text, JSON or YAML on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cli.progress import Progress

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Output:
    """How this command speaks. Made once, from the global options."""

    def __init__(self, form: str = "text", *, quiet: bool = False) -> None:
        self.form = form
        self.quiet = quiet
        self.progress = Progress(quiet=quiet or form != "text")

    def show(self, value: Any, text: str) -> None:
        """The command's object: alone on standard output in the asked form, else the text."""
        if self.form == "text":
            if not self.quiet and text:
                write(text)
        else:
            write(structured(value, self.form))

    def note(self, text: str) -> None:
        """A remark for people, on standard error."""
        if not self.quiet and self.form == "text":
            print(text, file=sys.stderr, flush=True)  # noqa: T201  this is the printing place

    def fail(self, text: str) -> None:
        """The command's error: in the asked form on standard output, else a line on standard error."""
        self.progress.stop()
        if self.form == "text":
            print(f"tpctl: error: {text}", file=sys.stderr, flush=True)  # noqa: T201  this is the printing place
        else:
            write(structured({"error": text}, self.form))


def write(text: str) -> None:
    """To standard output. A reader that went away (`| head`) is not an error."""
    try:
        print(text, flush=True)  # noqa: T201  this is the printing place
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter fails again when it flushes at its end


def structured(value: Any, form: str) -> str:
    """The object as JSON or YAML text."""
    if form == "yaml":
        import yaml

        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_dict(message: Message) -> dict[str, Any]:
    """A control message as plain values: every field present, numbers as numbers, enums by name."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = dict(sorted(value.items()))
        elif field.is_repeated:
            result[field.name] = [_plain(field, one) for one in value]
        else:
            result[field.name] = _plain(field, value)
    return result


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return as_dict(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
