def outline(
    raw: bytes,
    longest: int,
    fields: tuple[bytes, ...],
    texts: tuple[bytes, ...],
    bulk: tuple[bytes, ...],
    spot: tuple[bytes, ...],
    /,
) -> tuple[bytes, int, int, int] | None: ...
