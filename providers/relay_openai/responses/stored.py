"""Answers that the relay keeps, because the target that gave them does not: how the next request builds upon them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import integer
from relay.kit import dumps, loads

__all__ = ["PREVIOUS", "Resumed", "alone", "deleted", "input_items", "kept", "refers", "resumed", "shown"]

PREVIOUS = "previous_response_id"
REFERRING = (PREVIOUS, "conversation", "background")
"""Fields of a request whose answer is part of something, or comes later."""
PAGE, LONGEST_PAGE = 20, 100
Recall = Callable[[str], bytes | None]


class Resumed(dict[str, Any]):
    """The fields of a request with all that it builds upon; `previous` is what it called that."""

    previous: str | None = None


def refers(data: Mapping[str, Any]) -> bool:
    """Whether a request names an answer that it builds upon, or items."""
    if data.get(PREVIOUS) is not None:
        return True
    items = data.get("input")
    if isinstance(items, list):
        for item in items:
            if item and isinstance(item, dict) and item.get("type") == "item_reference":
                return True
    return False


def alone(data: Mapping[str, Any]) -> bool:
    """Whether an answer stands for itself: the request refers to nothing else, and nobody can refer to its answer."""
    return data.get("store") is False and not refers(data) and not any(data.get(name) for name in REFERRING)


def resumed(data: dict[str, Any], recall: Recall, *, native: bool) -> dict[str, Any]:
    """A request that refers to an answer or to items, with those. The very same object if it stays as it is.

    What is not kept here may be kept by an upstream of this dialect (`native`). Raises BadParameter if that cannot be.
    """
    name = data.get(PREVIOUS)
    given = data.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    earlier: list[Any] = []
    if name is not None:
        found = recall(name) if isinstance(name, str) else None
        if found is None:
            if native:
                return data
            raise BadParameter(
                f"there is no answer {name!r} here: it was not stored, is too old, or is somebody else's; "
                "send the whole conversation",
                param=PREVIOUS,
                code="previous_response_not_found",
            )
        conversation = loads(found)
        earlier = [*conversation["input"], *conversation["response"]["output"]]
    named = [_item(item, recall) for item in items]
    if name is None and named == items:
        return data
    known = Resumed(data)
    known.pop(PREVIOUS, None)
    known["input"] = [*earlier, *named]
    known.previous = name
    return known


def _item(item: Any, recall: Recall) -> Any:
    """An item, or the one that it names. One that is not known stays as it is: reading it will say so."""
    if not isinstance(item, dict) or item.get("type") != "item_reference" or not isinstance(item.get("id"), str):
        return item
    found = recall(item["id"])
    return item if found is None else loads(found)


def kept(data: Mapping[str, Any], final: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """What to keep of an answer, by its name: the whole conversation, and each item that was said."""
    if data.get("store") is False or final.get("status") not in ("completed", "incomplete"):
        return
    given = data.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    yield str(final["id"]), dumps({"input": items, "response": final})
    for item in final["output"]:
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield item["id"], dumps(item)


def shown(document: bytes) -> dict[str, Any] | None:
    """A kept answer; None if that is only an item of one."""
    response = loads(document).get("response")
    return response if isinstance(response, dict) else None


def deleted(name: str) -> dict[str, Any]:
    """What is said of an answer that is gone."""
    return {"id": name, "object": "response", "deleted": True}


def input_items(name: str, document: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of what a kept answer was given, the newest first unless `order` says otherwise."""
    items = [
        {"id": f"{name}_in_{place}", "type": "message", **item}
        for place, item in enumerate(loads(document)["input"])
        if isinstance(item, dict)
    ]
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadParameter("order must be asc or desc", param="order")
    if order == "desc":
        items.reverse()
    limit = query.get("limit", str(PAGE))
    size = integer(int(limit) if limit.isdecimal() and limit.isascii() else limit, "limit", 1, LONGEST_PAGE)
    after = query.get("after")
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise BadParameter("after names no item of this list", param="after")
        items = items[places[0] + 1 :]
    page = items[:size]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > size,
    }
