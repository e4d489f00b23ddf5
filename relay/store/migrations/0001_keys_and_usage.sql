-- Times are Unix milliseconds, money is nano-dollars.

CREATE TABLE keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    old_digest BLOB UNIQUE,
    old_until INTEGER,
    prefix TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER,
    models TEXT,
    rpm INTEGER,
    tpm INTEGER,
    concurrency INTEGER,
    model_limits TEXT NOT NULL DEFAULT '{}',
    strict INTEGER NOT NULL DEFAULT 0,
    metadata TEXT NOT NULL DEFAULT '{}',
    version INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX keys_live_name ON keys (name) WHERE revoked_at IS NULL;
CREATE INDEX keys_by_version ON keys (version);

-- Every change that a running relay must see gets the next version; it asks only for rows above the last it saw.
CREATE TABLE keys_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL) STRICT;
INSERT INTO keys_version (id, version) VALUES (1, 0);

CREATE TRIGGER keys_inserted AFTER INSERT ON keys BEGIN
    UPDATE keys_version SET version = version + 1;
    UPDATE keys SET version = (SELECT version FROM keys_version) WHERE id = NEW.id;
END;

-- last_used_at is not in the list: being used is no change.
CREATE TRIGGER keys_updated AFTER UPDATE OF digest, old_digest, old_until, prefix, name, expires_at, revoked_at, models,
    rpm, tpm, concurrency, model_limits, strict, metadata ON keys BEGIN
    UPDATE keys_version SET version = version + 1;
    UPDATE keys SET version = (SELECT version FROM keys_version) WHERE id = NEW.id;
END;

CREATE TRIGGER keys_deleted BEFORE DELETE ON keys BEGIN
    SELECT RAISE(ABORT, 'keys are revoked, never deleted: usage rows name them');
END;

-- Words that usage rows repeat, each stored once.
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

CREATE TABLE prices (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    price TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- No foreign keys here: names and prices are only ever added, and a check per row and column would double the cost.
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,
    request_id ANY NOT NULL,
    at INTEGER NOT NULL,
    key_id INTEGER,
    operation INTEGER,
    model INTEGER,
    upstream INTEGER,
    target_model INTEGER,
    family INTEGER,
    dialect INTEGER,
    stream INTEGER NOT NULL,
    status INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    usage_source INTEGER NOT NULL,
    input INTEGER,
    output INTEGER,
    cache_read INTEGER,
    cache_write_5m INTEGER,
    cache_write_1h INTEGER,
    reasoning INTEGER,
    audio_in INTEGER,
    audio_out INTEGER,
    price_id INTEGER,
    cost INTEGER,
    first_byte_ms INTEGER,
    duration_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error_code INTEGER,
    tools INTEGER
) STRICT;

CREATE INDEX usage_at ON usage (at);
CREATE INDEX usage_key_at ON usage (key_id, at);
-- The last four bytes find a request among millions; the whole id in the index would cost 12 bytes more a row.
CREATE INDEX usage_request ON usage (substr(request_id, -4));
