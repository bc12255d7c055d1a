-- Money of a paid order that somebody gave back at Stripe itself: the webhook asks for a second look.

ALTER TABLE payments ADD COLUMN recheck boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN payments.recheck IS 'Stripe has told of a refund since this was paid';
CREATE INDEX payments_recheck ON payments (payment_ref) WHERE recheck;
