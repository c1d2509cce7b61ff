"""Records as plain data and JSON."""

import json


def plain(value):
    """A record, or what holds records, as dicts and lists."""
    if hasattr(value, "__match_args__") and hasattr(value, "__dict__"):
        return {name: plain(field) for name, field in vars(value).items()}
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(field) for field in value]
    return value


def as_json(value):
    """Readable JSON."""
    return json.dumps(plain(value), indent=2, default=str) + "\n"
