-- What becomes of a key's answers whose client has gone: 'cancel' or 'drain'; NULL is as the upstream says.
ALTER TABLE keys ADD COLUMN abort TEXT CHECK (abort IN ('cancel', 'drain'));

DROP TRIGGER keys_updated;
CREATE TRIGGER keys_updated AFTER UPDATE OF digest, old_digest, old_until, prefix, name, expires_at, revoked_at, models,
    rpm, tpm, concurrency, model_limits, budget, abort, strict, metadata ON keys BEGIN
    UPDATE keys_version SET version = version + 1;
    UPDATE keys SET version = (SELECT version FROM keys_version) WHERE id = NEW.id;
END;
