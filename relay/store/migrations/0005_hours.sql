-- What old usage rows add up to, once they themselves are gone: sums by hour and by all that reports are grouped by.
-- There may be several rows for one hour and one group; reports add them up.
CREATE TABLE hours (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    key_id INTEGER,
    operation INTEGER,
    model INTEGER,
    upstream INTEGER,
    target_model INTEGER,
    family INTEGER,
    dialect INTEGER,
    outcome INTEGER NOT NULL,
    usage_source INTEGER NOT NULL,
    error_code INTEGER,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    unpriced INTEGER NOT NULL
) STRICT;

CREATE INDEX hours_at ON hours (at);
CREATE INDEX hours_key_at ON hours (key_id, at);
