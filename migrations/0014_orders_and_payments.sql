-- Orders know their payment: where an order stands from the first attempt to pay it, and money that goes back.

-- Where an order stands that nobody has begun to ship, by the states of its payment (NULL: not one of checkout's) and of
-- its hold. The same as domain::OrderState::before_shipping, which a test holds it to.
CREATE FUNCTION order_before_shipping(payment text, hold text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE
        WHEN hold = 'shipped' THEN 'fulfilled'
        WHEN payment = 'refunded' THEN 'refunded'
        WHEN payment IN ('returning', 'aborted') OR hold = 'unallocated' THEN 'cancelled'
        WHEN hold = 'confirmed' AND (payment IS NULL OR payment = 'paid') THEN 'paid'
        ELSE 'payment_pending'
    END;

CREATE VIEW order_states AS
SELECT o.hold_id, o.attempt, o.tenant, o.user_id, o.lines, o.payment_ref, o.external_ref, o.ordered_at,
       coalesce(f.state, order_before_shipping(p.state, coalesce(h.state, 'confirmed'))) AS state,
       p.state AS payment_state, f.tries, f.next_try_at, f.carrier_reference, f.failed_at, f.reason
  FROM orders AS o
  LEFT JOIN holds AS h USING (hold_id, attempt)
  LEFT JOIN fulfilments AS f USING (hold_id, attempt)
  LEFT JOIN payments AS p ON p.payment_ref = o.payment_ref
UNION ALL
-- A hold's newest payment that has made no order, of a hold that nothing else has paid.
SELECT p.hold_id, p.hold_attempt, h.tenant, h.user_id,
       (SELECT jsonb_agg(jsonb_build_object('sku', line.sku, 'quantity', line.quantity) ORDER BY line.sku)
          FROM hold_lines AS line WHERE line.hold_id = h.hold_id AND line.attempt = h.attempt),
       p.payment_ref, h.external_ref, p.created_at,
       order_before_shipping(p.state, h.state), p.state, NULL, NULL, NULL, NULL, NULL
  FROM payments AS p
  JOIN holds AS h ON h.hold_id = p.hold_id AND h.attempt = p.hold_attempt
 WHERE NOT EXISTS (SELECT FROM payments AS newer WHERE newer.hold_id = p.hold_id AND newer.attempt > p.attempt)
   AND NOT EXISTS (SELECT FROM orders AS o WHERE o.hold_id = p.hold_id AND o.attempt = p.hold_attempt)
   AND NOT EXISTS (SELECT FROM orders AS o WHERE o.hold_id = p.retaken_hold_id AND o.payment_ref = p.payment_ref);
COMMENT ON VIEW order_states IS 'Every order and where it stands, from the first attempt to pay it on';

-- A request whose payment is not checkout's is told to whoever holds that payment, by a fact in the log.
ALTER TABLE refund_requests ADD COLUMN asked_at bigint;
COMMENT ON COLUMN refund_requests.asked_at IS 'When the log was last asked to say it, where the payment is not checkout''s';
COMMENT ON COLUMN refund_requests.done_at IS 'When the money was back: checkout says so, or the person who gave it back';

-- Sales that were taken back, by whomever: their money goes back.
CREATE INDEX holds_taken_back ON holds (lane, changed_at) WHERE state = 'unallocated';
