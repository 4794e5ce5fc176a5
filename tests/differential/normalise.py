"""Turns API messages into plain dicts that are equal for two runs of one program.

What differs between two runs of the same program on a correct server is replaced or
dropped here and nowhere else:

- UUIDs, wherever they stand in a string, become `$1`, `$2`, … in order of first sight;
  names that the driver made up for the run (workflow ID, queues) become `$workflow`, …;
- a timestamp becomes `$time` (that it is set is compared, its value is not);
- a payload becomes one line of its encoding and data;
- opaque bytes (task tokens, page tokens) become `$token`;
- the backoff of a run that follows another becomes `$measured` where it is not a whole number
  of milliseconds: the server then took from it how long that run was;
- a space that does not break, which protobuf's Go library writes in some builds' errors so
  that nobody compares them, becomes one that does;
- event times, event task IDs and counters of the server's own storage are dropped.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Iterator

# The error details are looked up by type URL: their modules must be loaded.
import temporalio.api.errordetails.v1  # noqa: F401
from google.protobuf import any_pb2, message, timestamp_pb2
from google.protobuf.json_format import MessageToDict
from temporalio.api.errordetails.v1 import message_pb2 as _errordetails  # noqa: F401

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# The over-long names of programs that try a limit.
LONG = re.compile(r"(.)\1{99,}")

# Dropped wherever they stand: values that say how a server stores, not what it did.
DROPPED = {
    "eventTime",
    "taskId",
    "stateTransitionCount",
    "historySizeBytes",
    "executionDuration",
    # Names files of the machine that ran the worker.
    "stackTrace",
    "backlogCountHint",
    # Which of the two an SDK's worker sends follows what the server says it can do.
    "workerVersion",
    "binaryChecksum",
    # A hint that follows the load of the moment.
    "pollerScalingDecision",
}

# Opaque to every client.
TOKENS = {"taskToken", "nextPageToken", "token"}

# Durations that the server measures: compared to ten milliseconds.
MEASURED = {"currentRetryInterval"}
# Given as asked for, or measured: the latter have digits below a millisecond.
PARTLY_MEASURED = {"firstWorkflowTaskBackoff"}
# Sets that travel as lists.
UNORDERED = {"coreUsedFlags", "langUsedFlags"}
PAYLOAD_FIELDS = {"metadata", "data", "externalPayloads"}


class Normaliser:
    """Holds the names given so far, so that one run ID has one name in a recording."""

    def __init__(self, names: dict[str, str]) -> None:
        # Longest first: a sticky queue's name may contain the queue's.
        self._names = sorted(names.items(), key=lambda item: -len(item[0]))
        self._uuids: dict[str, str] = {}

    def text(self, value: str) -> str:
        """A string with made-up names and UUIDs replaced."""
        value = value.replace("\u00a0", " ")
        for found, name in self._names:
            value = value.replace(found, name)
        value = LONG.sub(lambda run: f"{run.group(1)}×{len(run.group(0))}", value)
        return UUID.sub(self._uuid, value)

    def _uuid(self, match: re.Match[str]) -> str:
        return self._uuids.setdefault(match.group(0), f"${len(self._uuids) + 1}")

    def message(self, value: message.Message) -> dict[str, Any]:
        """A message as a normalised dict, without fields at their default."""
        times = dict(_timestamps(value, ()))
        return self._walk(MessageToDict(value), (), times)

    def _walk(self, value: Any, path: tuple, times: dict[tuple, str]) -> Any:
        if path in times:
            return times[path]
        if isinstance(value, dict):
            if isinstance(value.get("metadata"), dict) and set(value) <= PAYLOAD_FIELDS:
                return self.text(_payload(value))
            return {
                self.text(key): "$token"
                if key in TOKENS
                else sorted(item)
                if key in UNORDERED
                else _rounded(item)
                if key in MEASURED
                else _asked(item)
                if key in PARTLY_MEASURED
                else self._walk(item, (*path, key), times)
                for key, item in value.items()
                if key not in DROPPED
            }
        if isinstance(value, list):
            return [self._walk(item, (*path, index), times) for index, item in enumerate(value)]
        if isinstance(value, str):
            return self.text(value)
        return value


def _rounded(duration: str) -> str:
    """A JSON duration to ten milliseconds."""
    return f"{float(duration.removesuffix('s')):.2f}s"


def _asked(duration: str) -> str:
    """A JSON duration of whole milliseconds as it is, another as measured."""
    digits = duration.removesuffix("s").partition(".")[2]
    return duration if len(digits) <= 3 else "$measured"


def _payload(value: dict[str, Any]) -> str:
    """A payload on one line: encoding, data, other metadata."""
    metadata = {
        key: base64.b64decode(item).decode(errors="replace")
        for key, item in value["metadata"].items()
    }
    data = base64.b64decode(value.get("data", "")).decode(errors="replace")
    line = f"{metadata.pop('encoding', '?')} {data}"
    return line + "".join(f" {key}={metadata[key]}" for key in sorted(metadata))


def _timestamps(value: message.Message, path: tuple) -> Iterator[tuple[tuple, str]]:
    """The JSON paths at which `value` holds a google.protobuf.Timestamp."""
    if isinstance(value, timestamp_pb2.Timestamp):
        # Zero times (of either epoch) are told apart from real ones.
        yield path, "$time" if value.seconds > 0 else "$zero"
        return
    if isinstance(value, any_pb2.Any):
        return
    for field, item in value.ListFields():
        if field.message_type is None:
            continue
        here = (*path, field.json_name)
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key, entry in item.items():
                    yield from _timestamps(entry, (*here, str(key)))
        elif field.is_repeated:
            for index, entry in enumerate(item):
                yield from _timestamps(entry, (*here, index))
        else:
            yield from _timestamps(item, here)
