-- What each service may do in this database, said anew by every `holdfast migrate`: exactly this, and nothing that an older
-- version left. A role that the cluster does not have is passed over, and so is a table that another version has.
-- Which roles there are: infra/postgres/roles.sql. What they are for: docs/SECURITY.md.
DO $rights$
DECLARE
    picture CONSTANT text[] := ARRAY['lanes', 'processed_events', 'stock', 'holds', 'hold_lines', 'hold_parts', 'user_limits',
        'remembered_commands', 'remembered_sources', 'refused_requests', 'orders', 'required_refunds'];
    -- Written once and never changed.
    movements CONSTANT text[] := ARRAY['stock_movements'];
    views CONSTANT text[] := ARRAY['holds_readable', 'stock_movements_readable', '_sqlx_migrations'];
    payments CONSTANT text[] := ARRAY['prices', 'payments', 'payment_steps', 'webhook_events'];
    shipping CONSTANT text[] := ARRAY['fulfilments', 'fulfilment_tries', 'carrier_book', 'order_returns'];
    -- A view reads for whoever may read it: payments are in it.
    sales CONSTANT text[] := ARRAY['order_states'];
    refunds CONSTANT text[] := ARRAY['refund_requests'];
    people CONSTANT text[] := ARRAY['console_sessions', 'dead_letters_sent', 'check_results'];
    write CONSTANT text := 'SELECT, INSERT, UPDATE, DELETE';
    may record;
    called text;
BEGIN
    -- Two that grant at once would trip over each other's rows of the catalogue.
    PERFORM pg_advisory_xact_lock(hashtext('holdfast.rights'));
    FOR called IN SELECT rolname FROM pg_roles
        WHERE rolname = ANY (ARRAY['holdfast_ingress', 'holdfast_reserver', 'holdfast_persister', 'holdfast_expirer',
            'holdfast_checkout', 'holdfast_fulfiller', 'holdfast_console'])
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', called);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM %I', called);
    END LOOP;
    FOR may IN SELECT * FROM (VALUES
        ('holdfast_ingress', 'SELECT', picture || movements || views),
        ('holdfast_reserver', 'SELECT', picture || movements || views),
        ('holdfast_expirer', 'SELECT', picture || movements || views),
        ('holdfast_persister', write, picture),
        ('holdfast_persister', 'SELECT, INSERT', movements),
        ('holdfast_persister', 'SELECT', views),
        ('holdfast_checkout', write, payments || refunds),
        ('holdfast_checkout', 'SELECT', picture || movements || views || sales || shipping),
        ('holdfast_checkout', 'INSERT', ARRAY['audit_log']),
        ('holdfast_fulfiller', write, shipping || refunds),
        ('holdfast_fulfiller', 'SELECT', picture || movements || views || sales || payments),
        ('holdfast_fulfiller', 'SELECT, INSERT', ARRAY['audit_log']),
        -- To lock an order while its return is written; nothing less will do.
        ('holdfast_fulfiller', 'UPDATE (hold_id)', ARRAY['orders']),
        ('holdfast_console', write, people),
        ('holdfast_console', 'SELECT, INSERT, UPDATE', ARRAY['audit_log']),
        ('holdfast_console', 'SELECT', picture || movements || views || sales || payments || shipping || refunds || ARRAY['console_users'])
        ) AS rights (called, rights, tables)
    LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = may.called);
        FOREACH called IN ARRAY may.tables LOOP
            CONTINUE WHEN to_regclass('public.' || called) IS NULL;
            EXECUTE format('GRANT %s ON public.%I TO %I', may.rights, called, may.called);
        END LOOP;
    END LOOP;
END
$rights$;
