-- Fulfilment: from a confirmed hold to a parcel, and what happens when the carrier says no.
--
-- Written by the fulfiller only, but for refund_requests.done_at, which is written by whoever gives the money back. Times
-- are Postgres' own, in milliseconds since the Unix epoch: several fulfillers agree on them.

CREATE FUNCTION clock_ms() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

CREATE TABLE fulfilments (
    hold_id           uuid NOT NULL,
    attempt           bigint NOT NULL,
    state             text COLLATE "C" NOT NULL
                      CHECK (state IN ('paid', 'fulfilling', 'fulfilled', 'failed', 'cancelled', 'refunded')),
    tries             integer NOT NULL DEFAULT 0, -- Since it was made, or retried by a person.
    next_try_at       bigint NOT NULL,
    lease             bigint NOT NULL DEFAULT 0, -- Grows with every try: who has an older one may not judge.
    leased_until      bigint,
    carrier_reference text COLLATE "C", -- The carrier has it.
    asked_at          bigint, -- When the log was last asked to ship it, or to take it back.
    failed_at         bigint,
    reason            text COLLATE "C", -- Of its cancellation.
    actor             text COLLATE "C", -- Who cancelled.
    created_at        bigint NOT NULL,
    changed_at        bigint NOT NULL,
    PRIMARY KEY (hold_id, attempt)
);
COMMENT ON TABLE fulfilments IS 'One per order that is to be shipped: where it stands';
CREATE INDEX fulfilments_open ON fulfilments (next_try_at) WHERE state IN ('paid', 'fulfilling', 'failed', 'cancelled');

CREATE TABLE fulfilment_tries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id    uuid NOT NULL,
    attempt    bigint NOT NULL,
    lease      bigint NOT NULL,
    carrier    text COLLATE "C" NOT NULL,
    payload    jsonb NOT NULL,
    started_at bigint NOT NULL,
    ended_at   bigint NOT NULL,
    reference  text COLLATE "C",
    error      text COLLATE "C" -- NULL: it was accepted.
);
COMMENT ON TABLE fulfilment_tries IS 'What the carrier was asked, and what it said';
CREATE INDEX fulfilment_tries_by_hold ON fulfilment_tries (hold_id, attempt, id);

CREATE TABLE carrier_book (
    shipment_key text COLLATE "C" PRIMARY KEY,
    reference    text COLLATE "C" NOT NULL,
    payload      jsonb NOT NULL,
    asked        integer NOT NULL DEFAULT 1, -- How often.
    shipped_at   bigint NOT NULL
);
COMMENT ON TABLE carrier_book IS 'The log carrier''s own book: its parcels';

CREATE TABLE refund_requests (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id      uuid NOT NULL,
    payment_ref  text COLLATE "C" NOT NULL,
    reason       text COLLATE "C" NOT NULL,
    actor        text COLLATE "C" NOT NULL,
    requested_at bigint NOT NULL,
    done_at      bigint,
    UNIQUE (hold_id, payment_ref)
);
COMMENT ON TABLE refund_requests IS 'Money that has to go back, because its order was given up';
CREATE INDEX refund_requests_open ON refund_requests (id) WHERE done_at IS NULL;

CREATE TABLE order_returns (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id      uuid NOT NULL,
    attempt      bigint NOT NULL,
    key          text COLLATE "C" NOT NULL, -- The caller's: again, it changes nothing.
    sku          text COLLATE "C" NOT NULL,
    quantity     bigint NOT NULL CHECK (quantity > 0),
    reason       text COLLATE "C" NOT NULL,
    actor        text COLLATE "C" NOT NULL,
    requested_at bigint NOT NULL,
    sent_at      bigint, -- When the log had its command.
    UNIQUE (hold_id, attempt, key, sku)
);
COMMENT ON TABLE order_returns IS 'Units that came back, on their way into the log';
CREATE INDEX order_returns_open ON order_returns (id) WHERE sent_at IS NULL;

-- What is sold and not shipped yet.
CREATE INDEX holds_confirmed ON holds (hold_id, attempt) WHERE state = 'confirmed';
