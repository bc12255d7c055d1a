-- Payments, shipping and returns: holds that are paying, sales that are shipped or taken back, and money that must go back.

-- While a hold is paying: the time that it had left when the payment began, in milliseconds.
ALTER TABLE holds ADD COLUMN remaining_ms bigint;
COMMENT ON COLUMN holds.state IS 'held, paying, confirmed, shipped, unallocated, cancelled, expired, rejected';
COMMENT ON COLUMN holds.expires_at IS 'The deadline; while the hold is paying, the payment''s cap';
COMMENT ON COLUMN holds.payment_ref IS 'The payment that is being made or was tried last; once confirmed, the one that paid';
COMMENT ON COLUMN holds.reason IS 'Why it was cancelled, or given back after it was paid';

-- A hold that is paying is due, and alive by its key, as one that is held.
DROP INDEX holds_due;
CREATE INDEX holds_due ON holds (expires_at, hold_id) WHERE state IN ('held', 'paying');
DROP INDEX holds_live_by_key;
CREATE INDEX holds_live_by_key ON holds (key_bits) WHERE state IN ('held', 'paying', 'confirmed');

-- A shipped hold is forgotten like others that have ended, and its key may be used again: an order is one of an attempt.
ALTER TABLE orders ADD COLUMN attempt bigint;
UPDATE orders SET attempt = (SELECT max(attempt) FROM holds
                              WHERE holds.hold_id = orders.hold_id AND holds.state = 'confirmed');
ALTER TABLE orders ALTER COLUMN attempt SET NOT NULL;
ALTER TABLE orders DROP CONSTRAINT orders_pkey;
ALTER TABLE orders ADD PRIMARY KEY (hold_id, attempt);

CREATE TABLE required_refunds (
    lane           smallint NOT NULL,
    command_offset bigint NOT NULL,
    tenant         text COLLATE "C" NOT NULL,
    hold_id        uuid NOT NULL,
    payment_ref    text COLLATE "C" NOT NULL,
    reason         text COLLATE "C" NOT NULL,
    command_id     text COLLATE "C" NOT NULL,
    event_id       uuid NOT NULL,
    decided_at     bigint NOT NULL,
    PRIMARY KEY (lane, command_offset)
);
COMMENT ON TABLE required_refunds IS 'Payments that have to be given back, as the log says it';
CREATE INDEX required_refunds_by_hold ON required_refunds (hold_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON required_refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the columns of a movement say, with the new kinds.
COMMENT ON COLUMN stock_movements.reference IS 'The caller''s document, the payment of a confirmation, or the shipment';
COMMENT ON COLUMN stock_movements.actor IS 'Who adjusted, took back or returned; a hold''s own row says who buys';
