-- Checkout: what things cost, payments on their way, and what Stripe has told. Written by the role `checkout` alone.

CREATE TABLE prices (
    tenant     text COLLATE "C" NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0), -- Of one unit, in the currency's smallest.
    currency   text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    PRIMARY KEY (tenant, sku)
);
COMMENT ON TABLE prices IS 'What one unit of a SKU costs';

CREATE TABLE payments (
    payment_ref     text COLLATE "C" PRIMARY KEY,
    hold_id         uuid NOT NULL,
    hold_attempt    bigint NOT NULL, -- Which hold of this id: holds.attempt.
    attempt         integer NOT NULL, -- Which payment of this hold id, from 1.
    state           text COLLATE "C" NOT NULL, -- beginning, pending, aborting, returning, paid, aborted, refunded
    intent_id       text COLLATE "C" UNIQUE,
    client_secret   text COLLATE "C", -- The buyer's browser gets it; it is no secret of ours.
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        text COLLATE "C" NOT NULL,
    capture_method  text COLLATE "C" NOT NULL, -- automatic, manual
    retaken_hold_id uuid, -- The hold that took the units again when the money came late.
    created_at      bigint NOT NULL,
    updated_at      bigint NOT NULL,
    next_at         bigint NOT NULL, -- When the worker looks next; with a lease of it, when the lease is over.
    news            bigint NOT NULL DEFAULT 0, -- Counts webhooks, so that one that comes during a step is not missed.
    tries           integer NOT NULL DEFAULT 0, -- Failures in a row.
    UNIQUE (hold_id, attempt)
) WITH (fillfactor = 80);
COMMENT ON TABLE payments IS 'Every payment that was begun, and what became of it';
CREATE UNIQUE INDEX payments_open_by_hold ON payments (hold_id) WHERE state IN ('beginning', 'pending', 'aborting', 'returning');
CREATE INDEX payments_due ON payments (next_at) WHERE state IN ('beginning', 'pending', 'aborting', 'returning');

CREATE TABLE payment_steps (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_ref text COLLATE "C" NOT NULL REFERENCES payments,
    step        text COLLATE "C" NOT NULL,
    error       text, -- NULL: it was done.
    at          bigint NOT NULL
);
COMMENT ON TABLE payment_steps IS 'Each step of a payment that was tried, and what came of it';
CREATE INDEX payment_steps_by_payment ON payment_steps (payment_ref, id);

CREATE TABLE webhook_events (
    event_id    text COLLATE "C" PRIMARY KEY,
    kind        text COLLATE "C" NOT NULL,
    object_id   text COLLATE "C",
    received_at bigint NOT NULL
);
COMMENT ON TABLE webhook_events IS 'Events of Stripe whose signature was good, once by their id';
