-- Answers to be given again are sealed by their API key, and go with it when it is revoked. After a rotation they stay:
-- the new secret does not open them, but that they are there tells that a request was carried out.
CREATE TRIGGER repeats_revoked AFTER UPDATE OF revoked_at ON keys
WHEN NEW.revoked_at IS NOT NULL BEGIN
    DELETE FROM repeats WHERE key_id = NEW.id;
END;
