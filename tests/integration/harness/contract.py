"""CONTRACT's JSON: one object on stdout, its keys and their kinds, for every command."""

import json
import re

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")
SNAPSHOT = re.compile(r"[0-9a-f]{64}\Z")


def is_time(v):
    return isinstance(v, str) and bool(TIME.match(v))


def is_number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def is_bytes(v):
    return isinstance(v, int) and not isinstance(v, bool) and v >= 0


def is_text(v):
    return isinstance(v, str) and v != ""


def is_flag(v):
    return isinstance(v, bool)


def is_id(v):
    return isinstance(v, str) and bool(SNAPSHOT.match(v))


def is_list(v):
    return isinstance(v, list)


def or_null(check):
    def either(v):
        return v is None or check(v)
    either.__name__ = f"null or {check.__name__}"
    return either


def each(shape):
    def all_of(v, where):
        if not isinstance(v, list):
            raise AssertionError(f"{where} is no list: {v!r}")
        for i, item in enumerate(v):
            check_shape(item, shape, f"{where}[{i}]")
    return all_of


def check_shape(v, shape, where):
    if isinstance(shape, dict):
        if not isinstance(v, dict):
            raise AssertionError(f"{where} is no object: {v!r}")
        for key, inner in shape.items():
            if key not in v:
                raise AssertionError(f"{where} lacks {key!r}: {v!r}")
            check_shape(v[key], inner, f"{where}.{key}")
    elif shape.__name__ == "all_of":
        shape(v, where)
    elif not shape(v):
        raise AssertionError(f"{where} should be {shape.__name__}, but is {v!r}")


ERROR = {"code": is_text, "message": is_text, "object": or_null(lambda v: isinstance(v, str)),
         "hint": or_null(lambda v: isinstance(v, str))}

WORKER = {"name": is_text, "state": is_text,
          "as_of": or_null(is_time),
          "fresh_until": or_null(is_time),
          "proven_at": or_null(is_time),
          "behind": or_null(is_bytes),
          "error": or_null(is_text)}
STATE = {"state": is_text, "running": is_flag,
         "last_result": is_text, "as_of": or_null(is_time),
         "fresh_until": or_null(is_time),
         "max_age_s": or_null(is_number),
         "snapshot": or_null(is_id),
         "proven_at": or_null(is_time),
         "next_run": or_null(is_time),
         "duration_s": or_null(is_number),
         "bytes_read": or_null(is_bytes),
         "bytes_changed": or_null(is_bytes),
         "bytes_sent": or_null(is_bytes),
         "size_bytes": or_null(is_bytes),
         "error": or_null(is_text), "workers": each(WORKER)}

SHAPES = {
    "backup": {"sources": each({
        "name": is_text, "snapshot": or_null(is_id), "unchanged": or_null(is_flag),
        "complete": or_null(is_flag), "as_of": or_null(is_time), "duration_s": or_null(is_number),
        "bytes_read": or_null(is_bytes), "bytes_changed": or_null(is_bytes),
        "bytes_sent": or_null(is_bytes),
        "failed_entries": each({"path": is_text, "reason": is_text}),
        "workers": each({"name": is_text, "stored": is_flag, "error": or_null(is_text)})})},
    "snapshots": {"snapshots": each({
        "id": is_id, "source": is_text, "taken_at": is_time, "complete": is_flag,
        "size_bytes": or_null(is_bytes), "new_bytes": or_null(is_bytes),
        "proven_at": or_null(is_time), "workers": is_list})},
    "restore": {"snapshot": is_id, "taken_at": is_time, "target": or_null(is_text),
                "files": each({"path": is_text, "bytes": or_null(is_bytes), "result": is_text}),
                "old_kept_at": or_null(is_text)},
    "verify": {"workers": each({
        "name": is_text, "files": or_null(is_bytes), "bytes": or_null(is_bytes),
        "damaged": is_list})},
    "prune": {"snapshots": each({
        "id": is_id, "source": is_text, "keep": is_flag, "reasons": is_list})},
    "status": {"sources": each({"name": is_text, **STATE})},
}


def check_json(command, result):
    """The parsed answer; AssertionError when stdout is not what CONTRACT says. A command that
    failed as a whole (exit 1 or 2) may answer without its own keys."""
    try:
        answer = json.loads(result.stdout)
    except ValueError as e:
        raise AssertionError(f"stdout is not one JSON object ({e}): {result}") from None
    try:
        check_shape(answer, {"syncd": is_text, "command": is_text, "exit": is_number,
                             "errors": each(ERROR)}, command)
        if answer["command"] != command:
            raise AssertionError(f"command is {answer['command']!r}")
        if answer["exit"] != result.exit:
            raise AssertionError(f"exit is {answer['exit']} in the JSON")
        if result.exit in (1, 2) and not answer["errors"]:
            raise AssertionError("a failure without an entry in errors")
        if result.exit not in (1, 2):
            check_shape(answer, SHAPES.get(command, {}), command)
    except AssertionError as e:
        raise AssertionError(f"{e}\nin the answer of {result}") from None
    return answer
