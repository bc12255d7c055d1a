-- The durable picture of the log: what its valid events add up to, up to the offset in `lanes` (I6).
--
-- Written by the persister only, each batch in one transaction with the row of `lanes`. No constraint here judges what a
-- valid event says: the log is the truth, and `holdfast verify` finds where it is wrong.
--
-- Times are log time, in milliseconds since the Unix epoch (column names end in _at; log_time too); the `*_readable`
-- views show them as timestamps. Texts compare by byte (collation "C"), as the domain does.

CREATE TABLE lanes (
    lane                smallint PRIMARY KEY,
    next_event_offset   bigint NOT NULL DEFAULT 0,
    -- The fold's state at that offset.
    epoch               bigint NOT NULL DEFAULT -1,
    last_command_offset bigint NOT NULL DEFAULT -1,
    last_decision_epoch bigint NOT NULL DEFAULT -1,
    log_time            bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE lanes IS 'How far the picture has come in each lane: the checkpoint that every role starts from';

CREATE TABLE processed_events (
    event_id     uuid PRIMARY KEY, -- Grows within a lane: lane, epoch, command offset.
    lane         smallint NOT NULL,
    event_offset bigint NOT NULL,
    decided_at   bigint NOT NULL
);
COMMENT ON TABLE processed_events IS 'Valid decisions that are in the picture; pruned behind the topic''s retention';

CREATE TABLE stock (
    tenant       text COLLATE "C" NOT NULL,
    sku          text COLLATE "C" NOT NULL,
    lane         smallint NOT NULL,
    on_hand      bigint NOT NULL,
    held         bigint NOT NULL,
    allocated    bigint NOT NULL,
    version      bigint NOT NULL,
    safety_stock bigint NOT NULL DEFAULT 0,
    max_per_user bigint, -- NULL: no limit.
    changed_at   bigint NOT NULL,
    PRIMARY KEY (tenant, sku)
) WITH (fillfactor = 70); -- A hot SKU's row is updated in place, without touching the index.
COMMENT ON TABLE stock IS 'Counters and policy of each SKU, in units';

CREATE TABLE holds (
    hold_id         uuid NOT NULL,
    attempt         bigint NOT NULL, -- Offset of its Reserve: a key may be used again after a rejection.
    lane            smallint NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    state           text COLLATE "C" NOT NULL, -- held, confirmed, cancelled, expired, rejected
    user_id         text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    key_bits        uuid NOT NULL, -- The 110 hash bits of the key, the same in every lane.
    fingerprint     bytea NOT NULL,
    created_at      bigint NOT NULL,
    expires_at      bigint NOT NULL,
    changed_at      bigint NOT NULL,
    policy          text COLLATE "C" NOT NULL,
    external_ref    text COLLATE "C",
    payment_ref     text COLLATE "C",
    reason          text COLLATE "C", -- Why it was cancelled.
    reject_reason   text COLLATE "C", -- Why it was rejected: a refusal's code.
    shortages       jsonb, -- Of a rejection: [{"sku", "requested", "available"}]
    command_offset  bigint NOT NULL, -- Of the last decision that changed it.
    PRIMARY KEY (hold_id, attempt)
) WITH (fillfactor = 85);
COMMENT ON TABLE holds IS 'Every decided Reserve: what it asked for, and what became of it';
-- The sweep for holds that are due.
CREATE INDEX holds_due ON holds (expires_at, hold_id) WHERE state = 'held';
-- One key alive in several lanes.
CREATE INDEX holds_live_by_key ON holds (key_bits) WHERE state IN ('held', 'confirmed');
-- Lists, newest first.
CREATE INDEX holds_by_time ON holds (tenant, created_at, hold_id, attempt);
CREATE INDEX holds_by_user ON holds (tenant, user_id, created_at, hold_id, attempt);

CREATE TABLE hold_lines (
    hold_id    uuid NOT NULL,
    attempt    bigint NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    quantity   bigint NOT NULL,
    lane       smallint NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL, -- The hold's, for lists by SKU.
    PRIMARY KEY (hold_id, attempt, sku)
);
COMMENT ON TABLE hold_lines IS 'SKU and units of each hold, also of rejected ones';
CREATE INDEX hold_lines_by_sku ON hold_lines (tenant, sku, created_at, hold_id, attempt);

CREATE TABLE user_limits (
    tenant  text COLLATE "C" NOT NULL,
    sku     text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    lane    smallint NOT NULL,
    counted bigint NOT NULL,
    PRIMARY KEY (tenant, sku, user_id)
) WITH (fillfactor = 85);
COMMENT ON TABLE user_limits IS 'Units that a user holds or has bought, where not zero';

CREATE TABLE remembered_commands (
    lane        smallint NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    command_id  text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    applied_at  bigint NOT NULL,
    PRIMARY KEY (lane, tenant, command_id)
);
COMMENT ON TABLE remembered_commands IS 'Command ids that were applied: again, they change nothing';

CREATE TABLE remembered_sources (
    lane             smallint NOT NULL,
    topic            text COLLATE "C" NOT NULL,
    source_partition integer NOT NULL,
    source_offset    bigint NOT NULL,
    log_time         bigint NOT NULL,
    applied_at       bigint NOT NULL,
    PRIMARY KEY (lane, topic, source_partition, source_offset)
);
COMMENT ON TABLE remembered_sources IS 'Forwarded and resent commands that were applied: again, they change nothing';

CREATE TABLE stock_movements (
    lane             smallint NOT NULL,
    command_offset   bigint NOT NULL,
    sku              text COLLATE "C" NOT NULL,
    tenant           text COLLATE "C" NOT NULL,
    event_id         uuid NOT NULL,
    event_offset     bigint NOT NULL,
    kind             text COLLATE "C" NOT NULL, -- The event's name.
    on_hand_change   bigint NOT NULL,
    held_change      bigint NOT NULL,
    allocated_change bigint NOT NULL,
    on_hand          bigint NOT NULL, -- This and the next three: after the change.
    held             bigint NOT NULL,
    allocated        bigint NOT NULL,
    version          bigint NOT NULL,
    reason           text COLLATE "C",
    reference        text COLLATE "C", -- The caller's document, or the payment of a confirmation.
    actor            text COLLATE "C", -- Who adjusted; a hold's own row says who buys.
    hold_id          uuid,
    decided_at       bigint NOT NULL,
    PRIMARY KEY (lane, command_offset, sku)
);
COMMENT ON TABLE stock_movements IS 'Every change of a counter, once, for ever: what, why, who, reference';
CREATE INDEX stock_movements_by_sku ON stock_movements (tenant, sku, command_offset);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING HINT = 'Correct stock by an adjustment: it is a movement of its own.';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_movements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE orders (
    hold_id      uuid PRIMARY KEY,
    lane         smallint NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    lines        jsonb NOT NULL, -- [{"sku", "quantity"}]
    payment_ref  text COLLATE "C",
    external_ref text COLLATE "C",
    event_id     uuid NOT NULL,
    ordered_at   bigint NOT NULL
);
COMMENT ON TABLE orders IS 'One per confirmed hold';
CREATE INDEX orders_by_user ON orders (tenant, user_id, ordered_at);

CREATE VIEW holds_readable AS
SELECT hold_id, attempt, lane, tenant, state, user_id, idempotency_key,
       (SELECT string_agg(sku || ' x ' || quantity, ', ' ORDER BY sku)
          FROM hold_lines AS line
         WHERE line.hold_id = holds.hold_id AND line.attempt = holds.attempt) AS lines,
       to_timestamp(created_at / 1000.0) AS created,
       to_timestamp(expires_at / 1000.0) AS expires,
       to_timestamp(changed_at / 1000.0) AS changed,
       external_ref, payment_ref, reason, reject_reason, shortages
  FROM holds;

CREATE VIEW stock_movements_readable AS
SELECT to_timestamp(decided_at / 1000.0) AS decided, tenant, sku, kind,
       on_hand_change, held_change, allocated_change, on_hand, held, allocated, version,
       reason, reference, actor, hold_id, lane, command_offset, event_offset
  FROM stock_movements;
