-- What is kept for the next turn (reasoning that clients drop, answers that they refer to), sealed so that only the API
-- key that it belongs to opens it, of which this file holds no more than a hash. `place` is a keyed digest of its name.
CREATE TABLE kept (
    id INTEGER PRIMARY KEY,
    place BLOB NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;

CREATE INDEX kept_age ON kept (kind, at);
CREATE INDEX kept_key ON kept (key_id, kind, at, size);

-- It goes with its key. After a rotation without a grace period nobody can open it any more, either.
CREATE TRIGGER kept_revoked AFTER UPDATE OF revoked_at, digest, old_digest ON keys
WHEN NEW.revoked_at IS NOT NULL OR (NEW.digest <> OLD.digest AND NEW.old_digest IS NULL) BEGIN
    DELETE FROM kept WHERE key_id = NEW.id;
END;
