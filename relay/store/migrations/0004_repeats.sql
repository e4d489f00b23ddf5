-- Answers to requests that came with a name of their own (Idempotency-Key), to be given again for a day.
CREATE TABLE repeats (
    id INTEGER PRIMARY KEY,
    key_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    answer BLOB NOT NULL,
    UNIQUE (key_id, name)
) STRICT;

CREATE INDEX repeats_at ON repeats (at);
