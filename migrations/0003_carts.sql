-- Carts over several lanes, and holds that got less than was asked for.

-- What the hold is made of, where its lines live in several lanes:
-- {"relay_until", "ttl_ms", "lines": [[lane, sku, quantity], ...]}. Its lines in hold_lines are those of all lanes.
ALTER TABLE holds ADD COLUMN cart jsonb;
-- What was asked for, where the policy lets the lines be others: [[sku, quantity], ...]
ALTER TABLE holds ADD COLUMN asked jsonb;
COMMENT ON COLUMN holds.state IS 'pending, held, paying, confirmed, shipped, unallocated, cancelled, expired, rejected';
COMMENT ON COLUMN holds.expires_at IS 'The deadline; while the hold is pending, the relay''s; while it is paying, the payment''s cap';

-- A hold that is pending is due at the relay's deadline, and alive by its key.
DROP INDEX holds_due;
CREATE INDEX holds_due ON holds (expires_at, hold_id) WHERE state IN ('pending', 'held', 'paying');
DROP INDEX holds_live_by_key;
CREATE INDEX holds_live_by_key ON holds (key_bits) WHERE state IN ('pending', 'held', 'paying', 'confirmed');

CREATE TABLE hold_parts (
    hold_id     uuid NOT NULL,
    attempt     bigint NOT NULL, -- Offset of the cart's Reserve in its home lane.
    lane        smallint NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    state       text COLLATE "C" NOT NULL, -- held, settled, shipped, unallocated, undone
    user_id     text COLLATE "C", -- NULL: a mark that keeps a late relay from holding anything.
    relay_until bigint NOT NULL, -- A relay is refused at this log time and after.
    changed_at  bigint NOT NULL,
    lines       jsonb NOT NULL, -- This lane's own: [[sku, quantity], ...]
    cart        jsonb NOT NULL, -- All lines: [[lane, sku, quantity], ...]
    PRIMARY KEY (hold_id, attempt, lane)
) WITH (fillfactor = 85);
COMMENT ON TABLE hold_parts IS 'What each lane but the home lane keeps of a cart over several lanes';
CREATE INDEX hold_parts_by_lane ON hold_parts (lane, changed_at);
