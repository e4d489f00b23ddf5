-- Nano-dollars by window, as JSON: {"day": 5000000000}. What is missing is as configured; 0 is no limit.
ALTER TABLE keys ADD COLUMN budget TEXT NOT NULL DEFAULT '{}';

DROP TRIGGER keys_updated;
CREATE TRIGGER keys_updated AFTER UPDATE OF digest, old_digest, old_until, prefix, name, expires_at, revoked_at, models,
    rpm, tpm, concurrency, model_limits, budget, strict, metadata ON keys BEGIN
    UPDATE keys_version SET version = version + 1;
    UPDATE keys SET version = (SELECT version FROM keys_version) WHERE id = NEW.id;
END;
